// Order statistics of small samples.
#pragma once

#include <vector>

namespace w4tune {

// Quantile by linear interpolation between order statistics, 0 <= q <= 1. Requires a sample.
double quantile(std::vector<double> samples, double q);
double median(std::vector<double> samples);
// Interquartile range over the median: the spread the reports show.
double relative_spread(const std::vector<double>& samples);
// Requires positive values.
double geometric_mean(const std::vector<double>& values);

}  // namespace w4tune

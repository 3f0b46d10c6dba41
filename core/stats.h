// Order statistics of small samples, and the correction for many tests.
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
// The standard deviation of normal values about their median, by the median distance from it: a few
// wild values do not move it. Requires a value.
double robust_deviation(const std::vector<double>& values);

// A 95 % confidence interval of the median that assumes nothing about the distribution: two order
// statistics, picked by the binomial distribution. Fewer than six samples cannot give one: their
// range, which holds the median less often. Requires a sample.
struct Range {
  double low = 0.0;
  double high = 0.0;
};
Range median_interval(std::vector<double> samples);

// Holm's adjusted p-values, in the order given: calling significant what is below `alpha` here is
// wrong anywhere among all tests with a probability of at most `alpha`.
std::vector<double> holm_adjusted(const std::vector<double>& p_values);

}  // namespace w4tune

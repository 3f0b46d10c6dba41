// Order statistics of small samples, and the correction for many tests.
#pragma once

#include <optional>
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

// Place of each value among all, from 1; equal values share the mean of their places.
std::vector<double> ranks(const std::vector<double>& values);
// Spearman's correlation: that of the ranks, from -1 to 1. Empty where one side is all alike or has
// fewer than two values. Requires as many values on both sides.
std::optional<double> spearman(const std::vector<double>& x, const std::vector<double>& y);
// How well `predicted` finds what is best by `measured` (less is better): of the measured best
// `best_share` of all, at least one, the share that lies in the predicted best `in_share` of all,
// at least one. Both counts are rounded up, and what equals the last that counts, counts too.
// Requires values, as many on both sides, and shares above 0.
double top_recall(const std::vector<double>& predicted, const std::vector<double>& measured,
                  double best_share, double in_share);

// Holm's adjusted p-values, in the order given: calling significant what is below `alpha` here is
// wrong anywhere among all tests with a probability of at most `alpha`.
std::vector<double> holm_adjusted(const std::vector<double>& p_values);

}  // namespace w4tune

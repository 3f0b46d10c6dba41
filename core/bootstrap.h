// Bootstrap of medians and of their ratios, exact: what resampling without end would tend to is
// written down, so nothing is drawn, nothing is seeded, and the far tails are as good as the
// middle.
//
// The median of an odd number of draws with replacement is one of the samples, and the binomial
// distribution says which with what probability. An even number n is resampled by n - 1 draws,
// which errs to the wide side.
#pragma once

#include <vector>

namespace w4tune {

struct WeightedValue {
  double value = 0.0;
  double probability = 0.0;
};

// The bootstrap distribution of the median, by value; probabilities sum to 1. Of many samples,
// neighbours are taken together. Requires a sample.
std::vector<WeightedValue> bootstrap_median(std::vector<double> samples);

// log(median of a / median of b) as the bootstrap sees it, with a normal error added that no
// resampling can see because all samples of a side share it: what sets one run apart from the next.
class LogRatio {
 public:
  // Whether these can be a side: there are some, and all are positive.
  static bool takes(const std::vector<double>& samples);

  // Requires positive samples on both sides; `shared_error` is a standard deviation of the log.
  LogRatio(const std::vector<double>& a, const std::vector<double>& b, double shared_error);

  // Of the samples as they are.
  [[nodiscard]] double estimate() const { return estimate_; }
  // Variance of the resampled part alone.
  [[nodiscard]] double variance() const;

  // Probability of a value of at least, or of at most, x.
  [[nodiscard]] double at_least(double x) const { return tail(x, 1.0); }
  [[nodiscard]] double at_most(double x) const { return tail(x, -1.0); }
  // Where at_most() reaches p, 0 < p < 1.
  [[nodiscard]] double quantile(double p) const;

 private:
  [[nodiscard]] double tail(double x, double sign) const;

  std::vector<WeightedValue> a_;  // of log(median)
  std::vector<WeightedValue> b_;
  double shared_error_;
  double estimate_;
};

}  // namespace w4tune

#include "core/stats.h"

#include <algorithm>
#include <cmath>

#include "core/check.h"

namespace w4tune {

double quantile(std::vector<double> samples, double q) {
  W4_CHECK(!samples.empty(), "a quantile needs a sample");
  std::sort(samples.begin(), samples.end());
  const double position = q * static_cast<double>(samples.size() - 1);
  const auto below = static_cast<std::size_t>(position);
  const std::size_t above = std::min(below + 1, samples.size() - 1);
  const double weight = position - static_cast<double>(below);
  return samples[below] * (1.0 - weight) + samples[above] * weight;
}

double median(std::vector<double> samples) { return quantile(std::move(samples), 0.5); }

double relative_spread(const std::vector<double>& samples) {
  const double middle = median(samples);
  if (middle == 0.0) return 0.0;
  return (quantile(samples, 0.75) - quantile(samples, 0.25)) / middle;
}

double geometric_mean(const std::vector<double>& values) {
  W4_CHECK(!values.empty(), "a mean needs a value");
  double sum = 0.0;
  for (const double value : values) {
    W4_CHECK(value > 0.0, "a geometric mean needs positive values");
    sum += std::log(value);
  }
  return std::exp(sum / static_cast<double>(values.size()));
}

}  // namespace w4tune

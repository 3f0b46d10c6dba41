#include "core/stats.h"

#include <algorithm>
#include <cmath>
#include <numeric>

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

double robust_deviation(const std::vector<double>& values) {
  constexpr double kNormal = 1.4826;  // of a normal distribution, over its median distance
  const double middle = median(values);
  std::vector<double> distances;
  for (const double value : values) distances.push_back(std::abs(value - middle));
  return kNormal * median(std::move(distances));
}

Range median_interval(std::vector<double> samples) {
  W4_CHECK(!samples.empty(), "an interval needs a sample");
  constexpr double kOutside = 0.025;  // on either side
  std::sort(samples.begin(), samples.end());
  const auto n = static_cast<double>(samples.size());
  // The `low` smallest and largest can be left out: that at most `low` of n fair coins show heads
  // has a probability of at most kOutside.
  double probability = std::pow(0.5, n);
  double below = probability;
  std::size_t low = 0;
  while (below <= kOutside && 2 * (low + 1) < samples.size()) {
    ++low;
    probability *= (n - static_cast<double>(low) + 1.0) / static_cast<double>(low);
    below += probability;
  }
  if (below > kOutside && low > 0) --low;
  return {samples[low], samples[samples.size() - 1 - low]};
}

std::vector<double> holm_adjusted(const std::vector<double>& p_values) {
  std::vector<std::size_t> order(p_values.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::sort(order.begin(), order.end(),
            [&](std::size_t i, std::size_t j) { return p_values[i] < p_values[j]; });
  std::vector<double> adjusted(p_values.size());
  double largest = 0.0;
  for (std::size_t rank = 0; rank < order.size(); ++rank) {
    const auto left = static_cast<double>(order.size() - rank);
    largest = std::max(largest, std::min(1.0, left * p_values[order[rank]]));
    adjusted[order[rank]] = largest;
  }
  return adjusted;
}

}  // namespace w4tune

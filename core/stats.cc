#include "core/stats.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/check.h"

namespace w4tune {
namespace {

// The last value that still belongs to the least `share` of all.
double last_of_best(std::vector<double> values, double share) {
  const auto count = static_cast<double>(values.size());
  // Without the epsilon, 0.01 of 100 could come out as a hair above 1.
  const auto kept = static_cast<std::size_t>(std::ceil(share * count - 1e-9));
  const std::size_t last = std::clamp<std::size_t>(kept, 1, values.size()) - 1;
  std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(last),
                   values.end());
  return values[last];
}

// Indices of the values, least first.
std::vector<std::size_t> ascending(const std::vector<double>& values) {
  std::vector<std::size_t> order(values.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::sort(order.begin(), order.end(),
            [&](std::size_t i, std::size_t j) { return values[i] < values[j]; });
  return order;
}

}  // namespace

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

std::vector<double> ranks(const std::vector<double>& values) {
  const std::vector<std::size_t> order = ascending(values);
  std::vector<double> result(values.size());
  for (std::size_t begin = 0; begin < order.size();) {
    std::size_t end = begin + 1;
    while (end < order.size() && values[order[end]] == values[order[begin]]) ++end;
    const double place = 0.5 * static_cast<double>(begin + 1 + end);
    for (; begin < end; ++begin) result[order[begin]] = place;
  }
  return result;
}

std::optional<double> spearman(const std::vector<double>& x, const std::vector<double>& y) {
  W4_CHECK(x.size() == y.size(), "a correlation needs pairs");
  const std::vector<double> x_ranks = ranks(x);
  const std::vector<double> y_ranks = ranks(y);
  const double mean = 0.5 * static_cast<double>(x.size() + 1);
  double xy = 0.0;
  double xx = 0.0;
  double yy = 0.0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    xy += (x_ranks[i] - mean) * (y_ranks[i] - mean);
    xx += (x_ranks[i] - mean) * (x_ranks[i] - mean);
    yy += (y_ranks[i] - mean) * (y_ranks[i] - mean);
  }
  if (xx == 0.0 || yy == 0.0) return std::nullopt;
  return xy / std::sqrt(xx * yy);
}

double top_recall(const std::vector<double>& predicted, const std::vector<double>& measured,
                  double best_share, double in_share) {
  W4_CHECK(!measured.empty() && predicted.size() == measured.size(), "a recall needs pairs");
  W4_CHECK(best_share > 0.0 && in_share > 0.0, "a recall needs shares above 0");
  const double last_measured = last_of_best(measured, best_share);
  const double last_predicted = last_of_best(predicted, in_share);
  int best = 0;
  int found = 0;
  for (std::size_t i = 0; i < measured.size(); ++i) {
    if (measured[i] > last_measured) continue;
    ++best;
    if (predicted[i] <= last_predicted) ++found;
  }
  return static_cast<double>(found) / best;
}

std::vector<double> holm_adjusted(const std::vector<double>& p_values) {
  const std::vector<std::size_t> order = ascending(p_values);
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

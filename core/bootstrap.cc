#include "core/bootstrap.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "core/check.h"
#include "core/stats.h"

namespace w4tune {
namespace {

// Beyond this many standard deviations of the resampled median lies nothing that counts.
constexpr double kReach = 8.0;
constexpr double kMostAtoms = 64.0;
constexpr double kNegligible = 1e-7;  // probability of a value

// P(more than half of `draws` have a property of probability p); draws is odd.
double majority(int draws, double p) {
  if (p > 0.5) return 1.0 - majority(draws, 1.0 - p);
  if (p <= 0.0) return 0.0;
  const int half = (draws + 1) / 2;
  // The binomial terms from `half` up fall, since p <= 1/2.
  double log_term = half * std::log(p) + (draws - half) * std::log1p(-p);
  for (int i = 1; i <= draws - half; ++i) log_term += std::log(static_cast<double>(half + i) / i);
  double term = std::exp(log_term);
  double sum = 0.0;
  for (int hits = half; hits <= draws && term > sum * 1e-17; ++hits) {
    sum += term;
    term *= static_cast<double>(draws - hits) / (hits + 1) * p / (1.0 - p);
  }
  return sum;
}

// P(normal >= z standard deviations).
double upper_tail(double z) { return 0.5 * std::erfc(z / std::numbers::sqrt2); }

std::vector<WeightedValue> log_median(const std::vector<double>& samples) {
  std::vector<double> logs;
  for (const double sample : samples) {
    W4_CHECK(sample > 0.0, "a ratio needs positive samples");
    logs.push_back(std::log(sample));
  }
  return bootstrap_median(std::move(logs));
}

double variance_of(const std::vector<WeightedValue>& values) {
  double mean = 0.0;
  double square = 0.0;
  for (const auto& [value, probability] : values) mean += probability * value;
  for (const auto& [value, probability] : values) {
    square += probability * (value - mean) * (value - mean);
  }
  return square;
}

}  // namespace

std::vector<WeightedValue> bootstrap_median(std::vector<double> samples) {
  W4_CHECK(!samples.empty(), "a bootstrap needs a sample");
  std::sort(samples.begin(), samples.end());
  const int n = static_cast<int>(samples.size());
  const int draws = n % 2 == 0 ? n - 1 : n;
  const double reach = kReach * 0.5 * std::sqrt(n);
  const int first = std::max(1, static_cast<int>(0.5 * n - reach));
  const int last = std::min(n, static_cast<int>(0.5 * n + reach) + 1);
  const int stride = static_cast<int>(std::ceil((last - first + 1) / kMostAtoms));

  std::vector<WeightedValue> atoms;
  double below = 0.0;
  double kept = 0.0;
  for (int begin = first - 1; begin < last; begin += stride) {
    const int end = std::min(last, begin + stride);
    // The median is among the `end` smallest if more than half of the draws are.
    const double up_to = end == last ? 1.0 : majority(draws, static_cast<double>(end) / n);
    double sum = 0.0;
    for (int i = begin; i < end; ++i) sum += samples[static_cast<std::size_t>(i)];
    const double probability = up_to - below;
    below = up_to;
    if (probability < kNegligible) continue;
    atoms.push_back({sum / (end - begin), probability});
    kept += probability;
  }
  for (WeightedValue& atom : atoms) atom.probability /= kept;
  return atoms;
}

bool LogRatio::takes(const std::vector<double>& samples) {
  return !samples.empty() &&
         std::all_of(samples.begin(), samples.end(), [](double sample) { return sample > 0.0; });
}

LogRatio::LogRatio(const std::vector<double>& a, const std::vector<double>& b, double shared_error)
    : a_(log_median(a)),
      b_(log_median(b)),
      shared_error_(shared_error),
      estimate_(std::log(median(a) / median(b))) {
  W4_CHECK(shared_error >= 0.0, "an error is not negative");
}

double LogRatio::variance() const { return variance_of(a_) + variance_of(b_); }

// P(sign * value >= sign * x).
double LogRatio::tail(double x, double sign) const {
  double sum = 0.0;
  for (const WeightedValue& a : a_) {
    for (const WeightedValue& b : b_) {
      const double distance = sign * (x - (a.value - b.value));
      sum += a.probability * b.probability *
             (shared_error_ > 0.0 ? upper_tail(distance / shared_error_)
                                  : static_cast<double>(distance <= 0.0));
    }
  }
  return std::min(sum, 1.0);
}

double LogRatio::quantile(double p) const {
  W4_CHECK(p > 0.0 && p < 1.0, "a quantile is between 0 and 1");
  constexpr double kPrecision = 1e-7;
  double low = a_.front().value - b_.back().value - kReach * shared_error_;
  double high = a_.back().value - b_.front().value + kReach * shared_error_;
  while (high - low > kPrecision) {
    const double middle = 0.5 * (low + high);
    (at_most(middle) < p ? low : high) = middle;
  }
  return high;
}

}  // namespace w4tune

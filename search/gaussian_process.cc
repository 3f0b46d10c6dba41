#include "search/gaussian_process.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <optional>

#include "core/check.h"

namespace w4tune {
namespace {

// Scales and noise before anything is learnt, and how far they may go. A prior (log-normal of this
// precision) keeps the scales near: with few trials the likelihood alone takes axes for dead.
constexpr double kScale = 0.7;
constexpr double kLeastScale = 0.05;
constexpr double kMostScale = 4.0;
constexpr double kPriorPrecision = 3.0;
constexpr double kNoise = 1e-3;
constexpr double kLeastNoise = 1e-4;
constexpr double kMostNoise = 0.1;
// Of the distance between different values of an ordered axis, what is the same for all pairs: two
// neighbouring values may behave quite differently (a tile that divides the problem, one that does
// not).
constexpr double kUnordered = 0.25;
// Trials that a fit looks at: its time grows with their third power.
constexpr std::size_t kMostFitted = 128;
// Steps up and down a scale in one fit.
constexpr int kSteps = 3;
constexpr double kLeastVariance = 1e-8;

double matern(double distance) {
  const double q = std::sqrt(5.0) * distance;
  return (1.0 + q + q * q / 3.0) * std::exp(-q);
}

// A symmetric positive matrix becomes its lower triangle, in place; the diagonal's product comes as
// a logarithm. Empty where rounding has left it not positive.
std::optional<double> factorise(std::vector<double>& matrix, std::size_t n) {
  double log_diagonal = 0.0;
  for (std::size_t i = 0; i < n; ++i) {
    double* row = &matrix[i * n];
    for (std::size_t j = 0; j <= i; ++j) {
      const double* other = &matrix[j * n];
      double value = row[j];
      for (std::size_t k = 0; k < j; ++k) value -= row[k] * other[k];
      if (j < i) {
        row[j] = value / other[j];
      } else if (value <= 0.0) {
        return std::nullopt;
      } else {
        row[j] = std::sqrt(value);
        log_diagonal += std::log(row[j]);
      }
    }
  }
  return log_diagonal;
}

// Targets in coordinates where they are independent, and how far they lie from their mean there.
struct Whitened {
  std::vector<double> values;
  double mean = 0.0;
  double square_sum = 0.0;
};

// `row(i)` is row i of the lower triangle.
template <class Row>
Whitened whiten(std::span<const double> targets, const Row& row) {
  const std::size_t n = targets.size();
  std::vector<double> ones(n);
  Whitened white;
  white.values.resize(n);
  double along = 0.0;
  double length = 0.0;
  for (std::size_t i = 0; i < n; ++i) {
    const double* factors = row(i);
    double value = targets[i];
    double one = 1.0;
    for (std::size_t k = 0; k < i; ++k) {
      value -= factors[k] * white.values[k];
      one -= factors[k] * ones[k];
    }
    white.values[i] = value / factors[i];
    ones[i] = one / factors[i];
    along += ones[i] * white.values[i];
    length += ones[i] * ones[i];
  }
  white.mean = along / length;
  for (std::size_t i = 0; i < n; ++i) {
    white.values[i] -= white.mean * ones[i];
    white.square_sum += white.values[i] * white.values[i];
  }
  return white;
}

// Where all targets are equal.
constexpr double kLeastSquareSum = 1e-9;

}  // namespace

GaussianProcess::GaussianProcess(std::vector<Axis> axes)
    : axes_(std::move(axes)), scales_(axes_.size(), kScale), noise_(kNoise) {
  for (std::size_t axis = 0; axis < axes_.size(); ++axis) {
    tables_.push_back(table(axis, scales_[axis]));
  }
  columns_.resize(axes_.size());
}

std::vector<float> GaussianProcess::table(std::size_t axis, double scale) const {
  const auto [values, ordered] = axes_[axis];
  const double unordered = ordered ? kUnordered : 1.0;
  std::vector<float> correlations(values * values, 1.0F);
  for (std::size_t i = 0; i < values; ++i) {
    for (std::size_t j = 0; j < values; ++j) {
      if (i == j) continue;
      const double apart =
          static_cast<double>(i > j ? i - j : j - i) / static_cast<double>(values - 1);
      const double distance = unordered + (1.0 - unordered) * apart;
      correlations[i * values + j] = static_cast<float>(matern(scale * distance));
    }
  }
  return correlations;
}

float GaussianProcess::correlation(const Positions& a, const Positions& b) const {
  float product = 1.0F;
  for (std::size_t axis = 0; axis < axes_.size(); ++axis) {
    product *= tables_[axis][a[axis] * axes_[axis].values + b[axis]];
  }
  return product;
}

double GaussianProcess::badness(std::span<const Positions> trials,
                                std::span<const double> targets) const {
  const std::size_t n = trials.size();
  std::vector<double> matrix(n * n);
  for (std::size_t i = 0; i < n; ++i) {
    for (std::size_t j = 0; j <= i; ++j) matrix[i * n + j] = correlation(trials[i], trials[j]);
    matrix[i * n + i] += noise_;
  }
  const std::optional<double> log_diagonal = factorise(matrix, n);
  if (!log_diagonal) return std::numeric_limits<double>::infinity();
  const Whitened white = whiten(targets, [&](std::size_t i) { return &matrix[i * n]; });
  const auto count = static_cast<double>(n);
  double result =
      0.5 * count * std::log((white.square_sum + kLeastSquareSum) / count) + *log_diagonal;
  for (const double scale : scales_) {
    const double off = std::log(scale / kScale);
    result += 0.5 * kPriorPrecision * off * off;
  }
  return result;
}

template <class Try>
bool GaussianProcess::improves(double& value, double changed, double& least,
                               const Try& badness_now) {
  if (changed == value) return false;
  const double before = value;
  value = changed;
  const double now = badness_now();
  if (now < least) {
    least = now;
    return true;
  }
  value = before;
  return false;
}

void GaussianProcess::fit(std::span<const Positions> trials, std::span<const double> targets,
                          Random& random) {
  W4_CHECK(trials.size() == targets.size(), "a target for each trial");
  // Of many, the better half of those it looks at, and as many others.
  std::vector<std::size_t> chosen(trials.size());
  std::iota(chosen.begin(), chosen.end(), 0);
  if (chosen.size() > kMostFitted) {
    std::stable_sort(chosen.begin(), chosen.end(),
                     [&](std::size_t a, std::size_t b) { return targets[a] < targets[b]; });
    for (std::size_t i = kMostFitted / 2; i < kMostFitted; ++i) {
      std::swap(chosen[i], chosen[i + random.below(chosen.size() - i)]);
    }
    chosen.resize(kMostFitted);
  }
  std::vector<Positions> points;
  std::vector<double> values;
  for (const std::size_t i : chosen) {
    points.push_back(trials[i]);
    values.push_back(targets[i]);
  }
  const auto badness_now = [&] { return badness(points, values); };
  double least = badness_now();
  std::vector<std::size_t> order(axes_.size());
  std::iota(order.begin(), order.end(), 0);
  random.shuffle(order);
  for (const std::size_t axis : order) {
    for (const double factor : {0.6, 1.6}) {
      for (int step = 0; step < kSteps; ++step) {
        const double changed = std::clamp(scales_[axis] * factor, kLeastScale, kMostScale);
        std::vector<float> before = tables_[axis];
        tables_[axis] = table(axis, changed);
        if (improves(scales_[axis], changed, least, badness_now)) continue;
        tables_[axis] = std::move(before);
        break;
      }
    }
  }
  for (const double factor : {0.25, 4.0}) {
    improves(noise_, std::clamp(noise_ * factor, kLeastNoise, kMostNoise), least, badness_now);
  }
  trials_.clear();
  triangle_.clear();
  for (Positions& column : columns_) column.clear();
  rows_.clear();
  variance_.clear();
  mean_.clear();
}

void GaussianProcess::add_trial(const Positions& point) {
  const std::size_t n = trials_.size();
  std::vector<double> factors(n + 1);
  double rest = 1.0 + noise_;
  for (std::size_t j = 0; j < n; ++j) {
    double value = correlation(point, trials_[j]);
    for (std::size_t k = 0; k < j; ++k) value -= factors[k] * triangle_[j][k];
    factors[j] = value / triangle_[j][j];
    rest -= factors[j] * factors[j];
  }
  factors[n] = std::sqrt(std::max(rest, 0.5 * noise_));

  std::vector<float> row(variance_.size(), 1.0F);
  // In blocks that stay in the nearest cache.
  constexpr std::size_t kBlock = 1024;
  for (std::size_t begin = 0; begin < row.size(); begin += kBlock) {
    const std::size_t end = std::min(begin + kBlock, row.size());
    for (std::size_t axis = 0; axis < axes_.size(); ++axis) {
      const float* correlations = &tables_[axis][point[axis] * axes_[axis].values];
      const std::uint16_t* column = columns_[axis].data();
      for (std::size_t i = begin; i < end; ++i) row[i] *= correlations[column[i]];
    }
    for (std::size_t j = 0; j < n; ++j) {
      const auto factor = static_cast<float>(factors[j]);
      const float* other = rows_[j].data();
      for (std::size_t i = begin; i < end; ++i) row[i] -= factor * other[i];
    }
    const auto scale = static_cast<float>(1.0 / factors[n]);
    for (std::size_t i = begin; i < end; ++i) {
      row[i] *= scale;
      variance_[i] -= row[i] * row[i];
    }
  }
  trials_.push_back(point);
  triangle_.push_back(std::move(factors));
  rows_.push_back(std::move(row));
}

void GaussianProcess::add_candidate(const Positions& point) {
  std::vector<double> column(trials_.size());
  double variance = 1.0;
  for (std::size_t j = 0; j < trials_.size(); ++j) {
    double value = correlation(point, trials_[j]);
    for (std::size_t k = 0; k < j; ++k) value -= triangle_[j][k] * column[k];
    column[j] = value / triangle_[j][j];
    variance -= column[j] * column[j];
    rows_[j].push_back(static_cast<float>(column[j]));
  }
  for (std::size_t axis = 0; axis < axes_.size(); ++axis) columns_[axis].push_back(point[axis]);
  variance_.push_back(static_cast<float>(variance));
}

void GaussianProcess::update(std::span<const double> targets) {
  W4_CHECK(targets.size() == trials_.size(), "a target for each trial");
  const Whitened white = whiten(targets, [&](std::size_t i) { return triangle_[i].data(); });
  scale_ = std::sqrt((white.square_sum + kLeastSquareSum) / static_cast<double>(targets.size()));
  mean_.assign(variance_.size(), static_cast<float>(white.mean));
  for (std::size_t j = 0; j < targets.size(); ++j) {
    const auto factor = static_cast<float>(white.values[j]);
    const float* row = rows_[j].data();
    for (std::size_t i = 0; i < mean_.size(); ++i) mean_[i] += factor * row[i];
  }
}

double GaussianProcess::deviation(std::size_t candidate) const {
  return scale_ * std::sqrt(std::max(static_cast<double>(variance_[candidate]), kLeastVariance));
}

}  // namespace w4tune

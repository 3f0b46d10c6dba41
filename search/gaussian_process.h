// GaussianProcess: what the untried points of a discrete space may cost, from those tried.
//
// Points are positions in the value lists of their axes. Two points are alike by a product over the
// axes of a Matern correlation (nu = 5/2) of how far apart they are on each; how fast it falls is
// learnt for each axis. One thread at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "search/random.h"

namespace w4tune {

using Positions = std::vector<std::uint16_t>;  // one for each axis

struct Axis {
  std::size_t values = 0;
  bool ordered = true;  // false: two different values are as far apart as any others
};

class GaussianProcess {
 public:
  explicit GaussianProcess(std::vector<Axis> axes);

  // Learns from these trials how fast correlation falls on each axis and how noisy targets are: the
  // most probable values near those it has. Forgets trials and candidates. Where there are many
  // candidates it is faster to add them before the trials.
  void fit(std::span<const Positions> trials, std::span<const double> targets, Random& random);

  // A point that was tried; its target comes with `update`.
  void add_trial(const Positions& point);
  // A point to judge; candidates are counted from 0.
  void add_candidate(const Positions& point);

  // Judges all candidates, given the targets of all trials in the order they were added.
  void update(std::span<const double> targets);

  // How many candidates the last `update` judged: the first ones added.
  [[nodiscard]] std::size_t judged() const { return mean_.size(); }
  // What the target of a judged candidate is expected to be, and how surely.
  [[nodiscard]] double mean(std::size_t candidate) const { return mean_[candidate]; }
  [[nodiscard]] double deviation(std::size_t candidate) const;

 private:
  // Correlations of all pairs of values of an axis, at a scale.
  [[nodiscard]] std::vector<float> table(std::size_t axis, double scale) const;
  [[nodiscard]] float correlation(const Positions& a, const Positions& b) const;
  // Of what fit seeks the least: minus the logarithm of how probable scales and noise are.
  [[nodiscard]] double badness(std::span<const Positions> trials,
                               std::span<const double> targets) const;
  // Whether the new value was better; puts the old one back where it was not.
  template <class Try>
  bool improves(double& value, double changed, double& least, const Try& badness_now);

  std::vector<Axis> axes_;
  std::vector<double> scales_;  // by axis: correlation falls faster with a larger one
  double noise_;                // variance of a target of its own, relative to the process's
  std::vector<std::vector<float>> tables_;

  // The lower triangle L of the trials' covariance, and for each trial a row over the candidates of
  // L^-1 times their covariance with the trials: their means and variances are sums over rows.
  std::vector<Positions> trials_;
  std::vector<std::vector<double>> triangle_;
  std::vector<Positions> columns_;  // by axis: the positions of all candidates
  std::vector<std::vector<float>> rows_;
  std::vector<float> variance_;
  std::vector<float> mean_;
  double scale_ = 1.0;  // of the process: the standard deviation of a target nothing is known of
};

}  // namespace w4tune

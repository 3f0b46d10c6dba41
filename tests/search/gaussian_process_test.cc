#include "search/gaussian_process.h"

#include <gtest/gtest.h>

#include <cmath>

namespace w4tune {
namespace {

std::vector<Positions> grid(std::uint16_t side) {
  std::vector<Positions> points;
  for (std::uint16_t x = 0; x < side; ++x) {
    for (std::uint16_t y = 0; y < side; ++y) points.push_back({x, y});
  }
  return points;
}

double slope(const Positions& point) { return 0.3 * point[0]; }

// A process that has seen every second point of a slope along the first of two axes.
class Fitted : public testing::Test {
 protected:
  void SetUp() override {
    for (std::size_t i = 0; i < points_.size(); i += 2) {
      trials_.push_back(points_[i]);
      targets_.push_back(slope(points_[i]));
    }
    for (int round = 0; round < 3; ++round) process_.fit(trials_, targets_, random_);
  }
  void judge() {
    for (const Positions& point : points_) process_.add_candidate(point);
    for (const Positions& trial : trials_) process_.add_trial(trial);
    process_.update(targets_);
  }

  std::vector<Positions> points_ = grid(7);
  std::vector<Positions> trials_;
  std::vector<double> targets_;
  Random random_{1};
  GaussianProcess process_{{{7, true}, {7, true}}};
};

TEST_F(Fitted, PredictsThePointsBetweenTrials) {
  judge();
  ASSERT_EQ(process_.judged(), points_.size());
  for (std::size_t i = 0; i < points_.size(); ++i) {
    EXPECT_NEAR(process_.mean(i), slope(points_[i]), 0.08) << i;
    const bool is_tried = i % 2 == 0;
    EXPECT_LT(process_.deviation(i), is_tried ? 0.05 : 0.3) << i;
  }
}

TEST_F(Fitted, CandidatesMayComeBeforeOrAfterTrials) {
  judge();
  GaussianProcess other({{7, true}, {7, true}});
  Random random(1);
  for (int round = 0; round < 3; ++round) other.fit(trials_, targets_, random);
  for (std::size_t i = 0; i < 10; ++i) other.add_trial(trials_[i]);
  for (const Positions& point : points_) other.add_candidate(point);
  for (std::size_t i = 10; i < trials_.size(); ++i) other.add_trial(trials_[i]);
  other.update(targets_);
  for (std::size_t i = 0; i < points_.size(); ++i) {
    EXPECT_NEAR(other.mean(i), process_.mean(i), 1e-3);
    EXPECT_NEAR(other.deviation(i), process_.deviation(i), 1e-2);
  }
}

TEST(GaussianProcess, IsLessSureFarFromTrials) {
  GaussianProcess process({{9, true}});
  for (std::uint16_t x = 0; x < 9; ++x) process.add_candidate({x});
  process.add_trial({0});
  process.add_trial({1});
  process.update(std::vector<double>{1.0, 2.0});
  EXPECT_LT(process.deviation(0), process.deviation(2));
  EXPECT_LT(process.deviation(2), process.deviation(8));
}

TEST(GaussianProcess, NamesAreEquallyFarApart) {
  GaussianProcess process({{5, false}});
  for (std::uint16_t x = 0; x < 5; ++x) process.add_candidate({x});
  process.add_trial({0});
  process.update(std::vector<double>{1.0});
  EXPECT_EQ(process.deviation(1), process.deviation(4));
}

TEST(GaussianProcess, EqualTargetsAndRepeatedTrialsDoNotBreakIt) {
  GaussianProcess process({{3, true}, {1, true}});
  const std::vector<Positions> trials = {{0, 0}, {0, 0}, {2, 0}};
  const std::vector<double> targets = {1.0, 1.0, 1.0};
  Random random(1);
  process.fit(trials, targets, random);
  process.add_candidate({1, 0});
  for (const Positions& trial : trials) process.add_trial(trial);
  process.update(targets);
  EXPECT_NEAR(process.mean(0), 1.0, 1e-6);
  EXPECT_TRUE(std::isfinite(process.deviation(0)));
}

}  // namespace
}  // namespace w4tune

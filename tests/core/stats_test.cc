#include "core/stats.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

namespace w4tune {
namespace {

TEST(Stats, QuantilesInterpolateBetweenOrderStatistics) {
  const std::vector<double> samples = {4.0, 1.0, 3.0, 2.0};
  EXPECT_EQ(quantile(samples, 0.0), 1.0);
  EXPECT_EQ(quantile(samples, 1.0), 4.0);
  EXPECT_EQ(quantile(samples, 0.25), 1.75);
  EXPECT_EQ(median(samples), 2.5);
  EXPECT_EQ(median({7.0}), 7.0);
  EXPECT_EQ(median({3.0, 9.0, 5.0}), 5.0);
}

TEST(Stats, RelativeSpreadIsTheInterquartileRangeOverTheMedian) {
  EXPECT_EQ(relative_spread({1.0, 2.0, 3.0, 4.0, 5.0}), 2.0 / 3.0);
  EXPECT_EQ(relative_spread({5.0, 5.0}), 0.0);
  EXPECT_EQ(relative_spread({0.0, 0.0}), 0.0);
}

TEST(Stats, GeometricMean) {
  EXPECT_DOUBLE_EQ(geometric_mean({1.0, 4.0, 16.0}), 4.0);
  EXPECT_DOUBLE_EQ(geometric_mean({2.0, 0.5}), 1.0);
}

TEST(Stats, RobustDeviationIsThatOfNormalValuesAndIgnoresWildOnes) {
  // The quartiles of a normal distribution lie 0.6745 deviations from its middle.
  EXPECT_NEAR(robust_deviation({-0.6745, 0.0, 0.6745}), 1.0, 1e-4);
  EXPECT_NEAR(robust_deviation({9.3255, 10.0, 10.6745, 9.3255, 1000.0}), 1.0, 1e-4);
  EXPECT_EQ(robust_deviation({3.0}), 0.0);
}

// How often an interval holds the true median is what 95 % says, whatever the distribution.
TEST(Stats, MedianIntervalsHoldTheMedianNineteenTimesOfTwenty) {
  std::mt19937 random(1);
  std::exponential_distribution<double> skewed(1.0);
  const double truth = std::log(2.0);
  for (const int count : {6, 9, 25, 60}) {
    int held = 0;
    constexpr int kTurns = 4000;
    for (int turn = 0; turn < kTurns; ++turn) {
      std::vector<double> samples(static_cast<std::size_t>(count));
      for (double& sample : samples) sample = skewed(random);
      const Range range = median_interval(samples);
      if (range.low <= truth && truth <= range.high) ++held;
    }
    EXPECT_GE(held, kTurns * 945 / 1000) << count;
    EXPECT_LE(held, kTurns * 990 / 1000) << count;
  }
}

TEST(Stats, MedianIntervalOfFewIsTheirRange) {
  const Range range = median_interval({3.0, 1.0, 2.0});
  EXPECT_EQ(range.low, 1.0);
  EXPECT_EQ(range.high, 3.0);
  EXPECT_EQ(median_interval({5.0}).low, 5.0);
}

TEST(Stats, HolmStepsDown) {
  const std::vector<double> adjusted = holm_adjusted({0.01, 0.04, 0.03, 0.005});
  const std::vector<double> expected = {0.03, 0.06, 0.06, 0.02};
  for (std::size_t i = 0; i < expected.size(); ++i) EXPECT_DOUBLE_EQ(adjusted[i], expected[i]);
  EXPECT_EQ(holm_adjusted({0.5, 0.9}), (std::vector<double>{1.0, 1.0})) << "never above 1";
  EXPECT_TRUE(holm_adjusted({}).empty());
}

TEST(Stats, ASampleIsRequired) {
  EXPECT_DEATH(median({}), "needs a sample");
  EXPECT_DEATH(geometric_mean({}), "needs a value");
  EXPECT_DEATH(geometric_mean({1.0, 0.0}), "positive");
}

}  // namespace
}  // namespace w4tune

#include "core/stats.h"

#include <gtest/gtest.h>

#include <cmath>
#include <optional>
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

TEST(Stats, RanksShareThePlacesOfEqualValues) {
  EXPECT_EQ(ranks({30.0, 10.0, 20.0}), (std::vector<double>{3.0, 1.0, 2.0}));
  EXPECT_EQ(ranks({5.0, 1.0, 5.0, 5.0}), (std::vector<double>{3.0, 1.0, 3.0, 3.0}));
  EXPECT_EQ(ranks({7.0}), std::vector<double>{1.0});
  EXPECT_TRUE(ranks({}).empty());
}

TEST(Stats, SpearmanKnowsOrderAlone) {
  EXPECT_DOUBLE_EQ(*spearman({1.0, 2.0, 3.0, 4.0}, {1.0, 10.0, 11.0, 1e9}), 1.0);
  EXPECT_DOUBLE_EQ(*spearman({1.0, 2.0, 3.0}, {9.0, 8.0, 1.0}), -1.0);
  // 1 - 6 * (1 + 1 + 0 + 0 + 0) / (5 * 24)
  EXPECT_DOUBLE_EQ(*spearman({1.0, 2.0, 3.0, 4.0, 5.0}, {2.0, 1.0, 3.0, 4.0, 5.0}), 0.9);
}

TEST(Stats, SpearmanOfTies) {
  // Ranks 1, 2.5, 2.5, 4 against 1, 2, 3, 4: 4.5 / sqrt(4.5 * 5).
  EXPECT_DOUBLE_EQ(*spearman({1.0, 2.0, 2.0, 3.0}, {1.0, 2.0, 3.0, 4.0}), 4.5 / std::sqrt(22.5));
  EXPECT_EQ(spearman({1.0, 1.0, 1.0}, {1.0, 2.0, 3.0}), std::nullopt) << "all alike";
}

TEST(Stats, SpearmanOfShortInput) {
  EXPECT_EQ(spearman({}, {}), std::nullopt);
  EXPECT_EQ(spearman({1.0}, {2.0}), std::nullopt);
  EXPECT_DOUBLE_EQ(*spearman({1.0, 2.0}, {5.0, 4.0}), -1.0);
}

TEST(Stats, TopRecallIsTheShareOfTheBestThatIsPredictedToBeGood) {
  // 200 values, so the best 1 % are two: one is predicted best, the other worst.
  std::vector<double> measured;
  for (int i = 0; i < 200; ++i) measured.push_back(i);
  std::vector<double> predicted = measured;
  EXPECT_EQ(top_recall(predicted, measured, 0.01, 0.1), 1.0);
  predicted[1] = 1000.0;
  EXPECT_EQ(top_recall(predicted, measured, 0.01, 0.1), 0.5);
  predicted[1] = 19.5;  // the 20th of 200 is within 10 %, what comes behind it is not
  EXPECT_EQ(top_recall(predicted, measured, 0.01, 0.1), 1.0);
  predicted[1] = 20.5;
  EXPECT_EQ(top_recall(predicted, measured, 0.01, 0.1), 0.5);
}

TEST(Stats, TopRecallOfFewAndOfTies) {
  EXPECT_EQ(top_recall({3.0}, {7.0}, 0.01, 0.1), 1.0) << "at least one counts";
  EXPECT_EQ(top_recall({1.0, 2.0, 3.0}, {9.0, 1.0, 5.0}, 0.01, 0.1), 0.0);
  EXPECT_EQ(top_recall({1.0, 1.0, 1.0}, {9.0, 1.0, 5.0}, 0.01, 0.1), 1.0) << "ties all count";
  EXPECT_EQ(top_recall({1.0, 2.0, 3.0}, {4.0, 4.0, 5.0}, 0.01, 0.1), 0.5);
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
  EXPECT_DEATH(spearman({1.0}, {}), "needs pairs");
  EXPECT_DEATH(top_recall({}, {}, 0.01, 0.1), "needs pairs");
}

}  // namespace
}  // namespace w4tune

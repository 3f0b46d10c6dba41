#include "core/stats.h"

#include <gtest/gtest.h>

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

TEST(Stats, ASampleIsRequired) {
  EXPECT_DEATH(median({}), "needs a sample");
  EXPECT_DEATH(geometric_mean({}), "needs a value");
  EXPECT_DEATH(geometric_mean({1.0, 0.0}), "positive");
}

}  // namespace
}  // namespace w4tune

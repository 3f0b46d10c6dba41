#include "search/replay.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

namespace w4tune {
namespace {

// Ten points of costs 1 to 10; the last does not work.
RecordedSpace ten() {
  RecordedSpace recorded;
  std::vector<int> values(10);
  std::iota(values.begin(), values.end(), 0);
  std::vector<Point> points;
  for (const int value : values) {
    points.push_back({value});
    recorded.costs[{0, {value}}] = value == 9 ? kFailed : value + 1.0;
  }
  recorded.spaces.push_back(Space::of_points({{"x", values}}, points));
  return recorded;
}

// All pairs, by hand: what two different random points reach on average.
double mean_of_pairs(const RecordedSpace& recorded) {
  std::vector<double> costs;
  for (const auto& [choice, cost] : recorded.costs) costs.push_back(cost);
  double sum = 0.0;
  int pairs = 0;
  for (std::size_t i = 0; i < costs.size(); ++i) {
    for (std::size_t j = 0; j < i; ++j, ++pairs) sum += 1.0 / std::min(costs[i], costs[j]);
  }
  return sum / pairs;
}

TEST(Replay, KnowsWhatARandomSearchReaches) {
  const RecordedSpace recorded = ten();
  ReplayOptions options;
  options.evaluations = {2, 10, 50};
  options.seeds = 2000;
  const std::vector<ReplayRow> rows = replay(recorded, find_strategy("random"), options);
  ASSERT_EQ(rows.size(), 3U);
  EXPECT_NEAR(rows[0].random, mean_of_pairs(recorded), 1e-12);
  EXPECT_NEAR(rows[0].mean, rows[0].random, 0.02);
  for (const std::size_t all : {std::size_t{1}, std::size_t{2}}) {
    EXPECT_DOUBLE_EQ(rows[all].random, 1.0);
    EXPECT_DOUBLE_EQ(rows[all].mean, 1.0) << "more evaluations than points";
    EXPECT_DOUBLE_EQ(rows[all].worst, 1.0);
    EXPECT_DOUBLE_EQ(rows[all].deviation, 0.0);
  }
}

TEST(Replay, AFailureCountsAndFindsNothing) {
  RecordedSpace recorded = ten();
  for (auto& [choice, cost] : recorded.costs) {
    if (choice.point[0] > 0) cost = kFailed;
  }
  EXPECT_EQ(recorded.failed(), 9U);
  EXPECT_EQ(recorded.best(), 1.0);
  ReplayOptions options;
  options.evaluations = {1};
  options.seeds = 1000;
  const ReplayRow row = replay(recorded, find_strategy("random"), options).front();
  EXPECT_DOUBLE_EQ(row.random, 0.1);
  EXPECT_NEAR(row.mean, 0.1, 0.03);
  EXPECT_DOUBLE_EQ(row.worst, 0.0);
}

TEST(Replay, DoesNotDependOnItsThreads) {
  const RecordedSpace recorded = ten();
  ReplayOptions options;
  options.evaluations = {3};
  options.seeds = 20;
  const ReplayRow alone = replay(recorded, find_strategy("surrogate"), options).front();
  options.threads = 3;
  int last = 0;
  options.progress = [&](int done) { EXPECT_EQ(done, ++last); };
  const ReplayRow together = replay(recorded, find_strategy("surrogate"), options).front();
  EXPECT_EQ(alone.mean, together.mean);
  EXPECT_EQ(alone.deviation, together.deviation);
  EXPECT_EQ(last, 20);
}

TEST(Replay, EndsWhenAsked) {
  ReplayOptions options;
  options.stop = [] { return true; };
  EXPECT_TRUE(replay(ten(), find_strategy("greedy"), options).empty());
}

TEST(Replay, HandsTheModelOn) {
  RecordedSpace recorded = ten();
  recorded.expected.emplace_back([](const Point& point) { return 1.0 + point[0]; });
  ReplayOptions options;
  options.evaluations = {1};
  options.seeds = 3;
  const ReplayRow row = replay(recorded, find_strategy("ranked"), options).front();
  EXPECT_DOUBLE_EQ(row.worst, 1.0) << "the first by rank is the best";
}

}  // namespace
}  // namespace w4tune

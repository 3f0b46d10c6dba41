#include "search/strategy.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>

namespace w4tune {
namespace {

// A known optimum at (7, 3): the sum of distances from it.
class FakeEvaluator final : public Evaluator {
 public:
  void announce(std::span<const Point> points) override { announced += points.size(); }
  double evaluate(const Point& point) override {
    ++evaluations[point];
    if (point == broken) return kFailed;
    return 1.0 + std::abs(point[0] - 7) + std::abs(point[1] - 3);
  }

  std::map<Point, int> evaluations;
  std::size_t announced = 0;
  Point broken;
};

Space grid() {
  std::vector<int> values;
  for (int i = 0; i < 10; ++i) values.push_back(i);
  return Space({{"x", values}, {"y", values}}, {});
}

double best_of(const SearchResult& result) {
  double best = kFailed;
  for (const Evaluation& evaluation : result.evaluations) best = std::min(best, evaluation.cost);
  return best;
}

TEST(RankedThenNeighbours, FindsTheOptimumFromAMisleadingRanking) {
  const Space space = grid();
  FakeEvaluator evaluator;
  const std::vector<Point> ranked = {{0, 9}, {1, 9}, {0, 8}, {2, 9}};
  Budget budget;
  budget.evaluations = 60;
  budget.ranked_share = 0.05;
  const SearchResult result = ranked_then_neighbours(space, {}, ranked, budget, evaluator);
  EXPECT_EQ(best_of(result), 1.0);
  EXPECT_LE(result.evaluations.size(), 60U);
}

TEST(RankedThenNeighbours, NeverEvaluatesAPointTwiceNorBeyondItsBudget) {
  const Space space = grid();
  FakeEvaluator evaluator;
  const std::vector<Point> ranked = {{5, 5}, {5, 5}, {4, 5}, {11, 0}};
  Budget budget;
  budget.evaluations = 25;
  const std::vector<Point> seeds = {{4, 5}};
  const SearchResult result = ranked_then_neighbours(space, seeds, ranked, budget, evaluator);
  EXPECT_EQ(result.evaluations.size(), 25U);
  for (const auto& [point, count] : evaluator.evaluations) EXPECT_EQ(count, 1);
  EXPECT_EQ(evaluator.evaluations.count({11, 0}), 0U) << "not a point of the space";
  EXPECT_EQ(result.evaluations.front().point, (Point{4, 5})) << "seeds come first";
}

TEST(RankedThenNeighbours, AnnouncesWhatItEvaluates) {
  const Space space = grid();
  FakeEvaluator evaluator;
  Budget budget;
  budget.evaluations = 30;
  const std::vector<Point> ranked = {{5, 5}};
  const SearchResult result = ranked_then_neighbours(space, {}, ranked, budget, evaluator);
  EXPECT_EQ(evaluator.announced, result.evaluations.size());
}

TEST(RankedThenNeighbours, StopsWhenAskedAndKeepsWhatItHas) {
  const Space space = grid();
  FakeEvaluator evaluator;
  int asked = 0;
  Budget budget;
  budget.stop = [&] { return ++asked > 3; };
  const std::vector<Point> ranked = {{1, 1}, {2, 2}, {3, 3}, {4, 4}, {5, 5}};
  const SearchResult result = ranked_then_neighbours(space, {}, ranked, budget, evaluator);
  EXPECT_TRUE(result.stopped);
  EXPECT_EQ(result.evaluations.size(), 3U);
}

TEST(RankedThenNeighbours, SurvivesFailingPoints) {
  const Space space = grid();
  FakeEvaluator evaluator;
  evaluator.broken = {5, 5};
  Budget budget;
  budget.evaluations = 40;
  budget.ranked_share = 0.1;
  const std::vector<Point> ranked = {{5, 5}, {6, 6}};
  const SearchResult result = ranked_then_neighbours(space, {}, ranked, budget, evaluator);
  EXPECT_EQ(best_of(result), 1.0);
}

TEST(RankedThenNeighbours, VisitsTheWholeSpaceWhenTheBudgetAllows) {
  const Space space = grid();
  FakeEvaluator evaluator;
  Budget budget;
  budget.evaluations = 1000;
  const std::vector<Point> ranked = {{0, 0}};
  const SearchResult result = ranked_then_neighbours(space, {}, ranked, budget, evaluator);
  EXPECT_EQ(result.evaluations.size(), 100U);
}

}  // namespace
}  // namespace w4tune

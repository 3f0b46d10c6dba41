#include "search/strategy.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>

namespace w4tune {
namespace {

// A known optimum at (7, 3): the sum of distances from it.
class FakeEvaluator final : public Evaluator {
 public:
  void announce(std::span<const Choice> choices) override { announced += choices.size(); }
  double evaluate(const Choice& choice) override {
    const Point& point = choice.point;
    ++evaluations[point];
    if (point == broken) return kFailed;
    return 1.0 + std::abs(point[0] - 7) + std::abs(point[1] - 3);
  }

  std::map<Point, int> evaluations;
  std::size_t announced = 0;
  Point broken;
};

std::vector<int> digits() { return {0, 1, 2, 3, 4, 5, 6, 7, 8, 9}; }

Space grid() { return Space({{"x", digits()}, {"y", digits()}}, {}); }

std::vector<RankedPoint> ranked_points(const std::vector<Point>& points) {
  std::vector<RankedPoint> ranked;
  for (const Point& point : points) ranked.push_back({point, static_cast<double>(ranked.size())});
  return ranked;
}

double best_of(const SearchResult& result) {
  double best = kFailed;
  for (const Evaluation& evaluation : result.evaluations) best = std::min(best, evaluation.cost);
  return best;
}

// One space alone.
SearchResult search_grid(const std::vector<Point>& seeds, const std::vector<Point>& ranked,
                         const Budget& budget, Evaluator& evaluator) {
  const Space space = grid();
  const std::vector<RankedPoint> points = ranked_points(ranked);
  const std::vector<Contender> contenders = {{&space, points, {}}};
  std::vector<Choice> choices;
  for (const Point& seed : seeds) choices.push_back({0, seed});
  return ranked_then_neighbours(contenders, choices, budget, evaluator);
}

TEST(RankedThenNeighbours, FindsTheOptimumFromAMisleadingRanking) {
  FakeEvaluator evaluator;
  Budget budget;
  budget.evaluations = 60;
  budget.ranked_share = 0.05;
  const SearchResult result = search_grid({}, {{0, 9}, {1, 9}, {0, 8}, {2, 9}}, budget, evaluator);
  EXPECT_EQ(best_of(result), 1.0);
  EXPECT_LE(result.evaluations.size(), 60U);
}

TEST(RankedThenNeighbours, NeverEvaluatesAPointTwiceNorBeyondItsBudget) {
  FakeEvaluator evaluator;
  Budget budget;
  budget.evaluations = 25;
  const SearchResult result =
      search_grid({{4, 5}}, {{5, 5}, {5, 5}, {4, 5}, {11, 0}}, budget, evaluator);
  EXPECT_EQ(result.evaluations.size(), 25U);
  for (const auto& [point, count] : evaluator.evaluations) EXPECT_EQ(count, 1);
  EXPECT_EQ(evaluator.evaluations.count({11, 0}), 0U) << "not a point of the space";
  EXPECT_EQ(result.evaluations.front().choice.point, (Point{4, 5})) << "seeds come first";
}

// A model that knows which way is down spends no evaluation on the way up.
TEST(RankedThenNeighbours, TriesNeighboursInTheOrderOfTheirExpectedCost) {
  const Space space = grid();
  const auto model = [](const Point& point) { return 10.0 - point[0] + 0.1 * point[1]; };
  const std::vector<RankedPoint> ranked = {{{2, 5}, model({2, 5})}};
  FakeEvaluator evaluator;
  Budget budget;
  budget.evaluations = 3;
  const std::vector<Contender> contenders = {{&space, ranked, model}};
  const SearchResult result = ranked_then_neighbours(contenders, {}, budget, evaluator);
  ASSERT_EQ(result.evaluations.size(), 3U);
  EXPECT_EQ(result.evaluations[1].choice.point, (Point{9, 5}));
  EXPECT_EQ(result.evaluations[2].choice.point, (Point{8, 5}));
}

TEST(RankedThenNeighbours, LeavesOutNeighboursThatAreExpectedToBeHopeless) {
  const Space space = grid();
  const auto model = [](const Point& point) { return point[0] == 4 ? 1.0 : 5.0; };
  const std::vector<RankedPoint> ranked = {{{4, 4}, 1.0}};
  FakeEvaluator evaluator;
  Budget budget;
  budget.evaluations = 50;
  const std::vector<Contender> contenders = {{&space, ranked, model}};
  const SearchResult result = ranked_then_neighbours(contenders, {}, budget, evaluator);
  EXPECT_EQ(result.evaluations.size(), 10U) << "all of x = 4";
  for (const Evaluation& evaluation : result.evaluations) {
    EXPECT_EQ(evaluation.choice.point[0], 4);
  }
}

TEST(RankedThenNeighbours, AnnouncesWhatItEvaluates) {
  FakeEvaluator evaluator;
  Budget budget;
  budget.evaluations = 30;
  const SearchResult result = search_grid({}, {{5, 5}}, budget, evaluator);
  EXPECT_EQ(evaluator.announced, result.evaluations.size());
}

TEST(RankedThenNeighbours, StopsWhenAskedAndKeepsWhatItHas) {
  FakeEvaluator evaluator;
  int asked = 0;
  Budget budget;
  budget.stop = [&] { return ++asked > 3; };
  const SearchResult result =
      search_grid({}, {{1, 1}, {2, 2}, {3, 3}, {4, 4}, {5, 5}}, budget, evaluator);
  EXPECT_TRUE(result.stopped);
  EXPECT_EQ(result.evaluations.size(), 3U);
}

TEST(RankedThenNeighbours, SurvivesFailingPoints) {
  FakeEvaluator evaluator;
  evaluator.broken = {5, 5};
  Budget budget;
  budget.evaluations = 40;
  budget.ranked_share = 0.1;
  const SearchResult result = search_grid({}, {{5, 5}, {6, 6}}, budget, evaluator);
  EXPECT_EQ(best_of(result), 1.0);
}

TEST(RankedThenNeighbours, VisitsTheWholeSpaceWhenTheBudgetAllows) {
  FakeEvaluator evaluator;
  Budget budget;
  budget.evaluations = 1000;
  const SearchResult result = search_grid({}, {{0, 0}}, budget, evaluator);
  EXPECT_EQ(result.evaluations.size(), 100U);
}

// Two spaces of unequal shape: a plane, and a line whose points cost what the test says.
class TwoSpaces : public testing::Test {
 protected:
  class Evaluator final : public w4tune::Evaluator {
   public:
    void announce(std::span<const Choice> /*choices*/) override {}
    double evaluate(const Choice& choice) override {
      const Point& point = choice.point;
      EXPECT_EQ(point.size(), choice.space == 0 ? 2U : 1U) << "a point of the other space";
      if (choice.space == 0) return 10.0 + std::abs(point[0] - 7) + std::abs(point[1] - 3);
      return line_cost + std::abs(point[0] - 20);
    }
    double line_cost = 100.0;
  };

  void SetUp() override {
    std::vector<int> values;
    for (int i = 0; i < 60; ++i) values.push_back(i);
    line_ = Space({{"z", values}}, {});
    for (int i = 0; i < 10; ++i) plane_ranked_.push_back({{i, 0}, 1.0 + i});
    for (int i = 0; i < 10; ++i) line_ranked_.push_back({{i}, 50.0 + i});  // believed to be worse
  }

  [[nodiscard]] SearchResult search(int evaluations) {
    Budget budget;
    budget.evaluations = evaluations;
    budget.least_share = 0.15;
    return ranked_then_neighbours(contenders(), {}, budget, evaluator_);
  }
  [[nodiscard]] std::vector<Contender> contenders() const {
    return {{&plane_, plane_ranked_}, {&line_, line_ranked_}};
  }
  static int count(const SearchResult& result, std::size_t space) {
    return static_cast<int>(
        std::count_if(result.evaluations.begin(), result.evaluations.end(),
                      [&](const Evaluation& e) { return e.choice.space == space; }));
  }

  Space plane_ = grid();
  Space line_{{}, {}};
  std::vector<RankedPoint> plane_ranked_;
  std::vector<RankedPoint> line_ranked_;
  Evaluator evaluator_;
};

TEST_F(TwoSpaces, RankingsAreMergedByExpectedCost) {
  line_ranked_ = {{{5}, 1.5}, {{6}, 3.5}, {{7}, 100.0}};
  const std::vector<Choice> merged = merge_rankings(contenders(), 0.0);
  ASSERT_EQ(merged.size(), 13U);
  EXPECT_EQ(merged[0], (Choice{0, {0, 0}}));
  EXPECT_EQ(merged[1], (Choice{1, {5}}));
  EXPECT_EQ(merged[2], (Choice{0, {1, 0}}));
  EXPECT_EQ(merged[4], (Choice{1, {6}}));
  EXPECT_EQ(merged[12], (Choice{1, {7}}));
}

TEST_F(TwoSpaces, ASpaceThatIsBelievedWorseKeepsItsShareOfEveryBeginning) {
  const std::vector<Choice> merged = merge_rankings(contenders(), 0.25);
  ASSERT_EQ(merged.size(), 20U);
  for (std::size_t length = 1; length <= merged.size(); ++length) {
    const auto of_line = std::count_if(merged.begin(), merged.begin() + static_cast<long>(length),
                                       [](const Choice& choice) { return choice.space == 1; });
    EXPECT_GE(of_line, static_cast<long>(length / 4)) << length;
  }
  EXPECT_EQ(merged[0].space, 0U) << "what is believed better begins";
}

TEST_F(TwoSpaces, TheLoserKeepsItsShareAndNoMore) {
  for (const int evaluations : {20, 40, 80}) {
    const SearchResult result = search(evaluations);
    EXPECT_EQ(static_cast<int>(result.evaluations.size()), evaluations);
    EXPECT_GE(count(result, 1), evaluations * 15 / 100);
    EXPECT_LE(count(result, 1), evaluations * 30 / 100);
    if (evaluations >= 40) {
      EXPECT_EQ(best_of(result), 10.0) << evaluations;
    }
  }
}

TEST_F(TwoSpaces, ASpaceThatIsBelievedWorseMayWin) {
  evaluator_.line_cost = 1.0;  // its optimum, far from all that is ranked, beats the plane's
  const SearchResult result = search(80);
  EXPECT_EQ(best_of(result), 1.0);
  EXPECT_GT(count(result, 1), 20) << "the neighbours of what won";
  EXPECT_GE(count(result, 0), 12) << "the other keeps its share";
}

TEST_F(TwoSpaces, ASpaceWithoutPointsLeftGivesItsShareAway) {
  line_ = Space({{"z", {0, 1, 2}}}, {});
  const SearchResult result = search(80);
  EXPECT_EQ(result.evaluations.size(), 80U);
  EXPECT_EQ(count(result, 1), 3);
}

TEST_F(TwoSpaces, SeedsMayBeOfAnySpace) {
  Budget budget;
  budget.evaluations = 10;
  const std::vector<Choice> seeds = {{1, {20}}, {0, {7, 3}}, {1, {99}}};
  const SearchResult result = ranked_then_neighbours(contenders(), seeds, budget, evaluator_);
  EXPECT_EQ(result.evaluations[0].choice, seeds[0]);
  EXPECT_EQ(result.evaluations[1].choice, seeds[1]);
  EXPECT_EQ(result.evaluations[2].choice, (Choice{0, {0, 0}})) << "(99) is no point of the line";
}

TEST_F(TwoSpaces, SharesAboveTheWholeAreCutToEqualOnes) {
  Budget budget;
  budget.evaluations = 40;
  budget.least_share = 0.9;
  const SearchResult result = ranked_then_neighbours(contenders(), {}, budget, evaluator_);
  EXPECT_EQ(count(result, 0), 20);
  EXPECT_EQ(count(result, 1), 20);
}

}  // namespace
}  // namespace w4tune

// What holds for every strategy, and what sets the guided ones apart.
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <map>
#include <numeric>
#include <thread>

#include "search/replay.h"
#include "search/strategy.h"
#include "w4tune/error.h"

namespace w4tune {
namespace {

std::vector<int> up_to(int count) {
  std::vector<int> values(static_cast<std::size_t>(count));
  std::iota(values.begin(), values.end(), 0);
  return values;
}

// A valley that turns: no axis can be judged alone. Best at (9, 6, 2).
double valley(const Point& point) {
  const double x = point[0];
  const double along = std::abs(x - 9.0);
  const double across = std::abs(point[1] - (2.0 * x / 3.0));
  return 10.0 + along + 2.0 * across + (point[2] == 2 ? 0.0 : 1.0 + 0.5 * point[2]);
}

Space valley_space() {
  return Space({{"x", up_to(12)}, {"y", up_to(12)}, {"z", up_to(4)}},
               {{"x + y is too large", {"x", "y"}, [](auto v) { return v[0] + v[1] <= 18; }}});
}

class Counting final : public Evaluator {
 public:
  explicit Counting(std::function<double(const Choice&)> cost) : cost_(std::move(cost)) {}
  void announce(std::span<const Choice> choices) override {
    for (const Choice& choice : choices) ++announced[choice];
  }
  double evaluate(const Choice& choice) override {
    EXPECT_GT(announced[choice], 0) << "announced before it is evaluated";
    ++evaluated[choice];
    return cost_(choice);
  }
  std::map<Choice, int> announced;
  std::map<Choice, int> evaluated;

 private:
  std::function<double(const Choice&)> cost_;
};

double best_of(const SearchResult& result) {
  double best = kFailed;
  for (const Evaluation& evaluation : result.evaluations) best = std::min(best, evaluation.cost);
  return best;
}

std::vector<Choice> choices_of(const SearchResult& result) {
  std::vector<Choice> choices;
  for (const Evaluation& evaluation : result.evaluations) choices.push_back(evaluation.choice);
  return choices;
}

int count_of(const SearchResult& result, std::size_t space) {
  const std::vector<Choice> choices = choices_of(result);
  return static_cast<int>(std::count_if(
      choices.begin(), choices.end(), [&](const Choice& choice) { return choice.space == space; }));
}

class EveryStrategy : public testing::TestWithParam<Strategy> {
 protected:
  static SearchResult search(const Budget& budget, std::span<const Choice> seeds = {},
                             const std::function<double(const Point&)>& cost = valley) {
    const Space space = valley_space();
    const std::vector<Contender> contenders = {{&space, {}, {}}};
    Counting evaluator([&](const Choice& choice) { return cost(choice.point); });
    SearchResult result = GetParam().search(contenders, seeds, budget, evaluator);
    for (const auto& [choice, count] : evaluator.evaluated) {
      EXPECT_EQ(count, 1) << "a point evaluated twice";
      EXPECT_TRUE(space.contains(choice.point));
    }
    EXPECT_EQ(evaluator.evaluated.size(), result.evaluations.size());
    return result;
  }
  static Budget budget_of(int evaluations, std::uint64_t seed = 1) {
    Budget budget;
    budget.evaluations = evaluations;
    budget.seed = seed;
    return budget;
  }
};

TEST_P(EveryStrategy, SpendsItsBudgetAndNoMore) {
  for (const int evaluations : {1, 2, 13, 100}) {
    EXPECT_EQ(search(budget_of(evaluations)).evaluations.size(),
              static_cast<std::size_t>(evaluations));
  }
}

TEST_P(EveryStrategy, VisitsEveryPointWhenTheBudgetAllows) {
  const std::size_t points = valley_space().enumerate().points.size();
  const SearchResult result = search(budget_of(10'000));
  EXPECT_EQ(result.evaluations.size(), points);
  EXPECT_FALSE(result.stopped);
}

TEST_P(EveryStrategy, RepeatsItselfFromItsSeed) {
  const auto once = choices_of(search(budget_of(60, 5)));
  EXPECT_EQ(choices_of(search(budget_of(60, 5))), once);
  if (GetParam().name != "exhaustive") {
    EXPECT_NE(choices_of(search(budget_of(60, 6))), once);
  }
}

TEST_P(EveryStrategy, BeginsWithTheSeedsThatAreValid) {
  const std::vector<Choice> seeds = {{0, {3, 3, 3}}, {0, {11, 11, 0}}, {0, {9, 6, 2}}};
  const SearchResult result = search(budget_of(20), seeds);
  EXPECT_EQ(result.evaluations[0].choice, seeds[0]);
  EXPECT_EQ(result.evaluations[1].choice, seeds[2]) << "the second breaks the constraint";
}

TEST_P(EveryStrategy, StopsWhenItsSecondsAreOver) {
  Budget budget = budget_of(10'000);
  budget.seconds = 0.5;
  const SearchResult result = search(budget, {}, [](const Point& point) {
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    return valley(point);
  });
  EXPECT_TRUE(result.stopped);
  EXPECT_GE(result.evaluations.size(), 1U);
  EXPECT_LE(result.evaluations.size(), 6U);
}

TEST_P(EveryStrategy, StopsWhenAsked) {
  int asked = 0;
  Budget budget = budget_of(100);
  budget.stop = [&] { return ++asked > 20; };
  const SearchResult result = search(budget);
  EXPECT_TRUE(result.stopped);
  EXPECT_EQ(result.evaluations.size(), 20U);
}

TEST_P(EveryStrategy, TakesFailuresForEvaluations) {
  const SearchResult result = search(budget_of(120), {}, [](const Point& point) {
    return point[2] % 2 == 1 ? kFailed : valley(point);
  });
  EXPECT_EQ(result.evaluations.size(), 120U);
  EXPECT_LT(best_of(result), kFailed);
}

TEST_P(EveryStrategy, GoesOnWhereNothingWorks) {
  const SearchResult result = search(budget_of(50), {}, [](const Point&) { return kFailed; });
  EXPECT_EQ(result.evaluations.size(), 50U);
}

TEST_P(EveryStrategy, ASpaceWithoutPointsIsNoneToSearch) {
  const Space space({{"x", {1, 2}}}, {{"never", {"x"}, [](auto) { return false; }}});
  const std::vector<Contender> contenders = {{&space, {}, {}}};
  Counting evaluator([](const Choice&) { return 1.0; });
  EXPECT_TRUE(GetParam().search(contenders, {}, Budget{}, evaluator).evaluations.empty());
}

// 4^14 points, a quarter of a billion: no strategy enumerates them.
TEST_P(EveryStrategy, SearchesASpaceTooLargeToEnumerate) {
  std::uint64_t asked = 0;
  std::vector<Parameter> parameters;
  std::vector<Constraint> constraints;
  for (int i = 0; i < 14; ++i) parameters.push_back({"p" + std::to_string(i), up_to(4)});
  for (int i = 0; i < 7; ++i) {
    constraints.push_back({"sum",
                           {parameters[static_cast<std::size_t>(i)].name,
                            parameters[static_cast<std::size_t>(13 - i)].name},
                           [&asked](auto v) { return ++asked, v[0] + v[1] <= 4; }});
  }
  const Space space(parameters, constraints);
  const std::vector<Contender> contenders = {{&space, {}, {}}};
  Counting evaluator([](const Choice& choice) {
    return 1.0 + std::accumulate(choice.point.begin(), choice.point.end(), 0.0);
  });
  const SearchResult result = GetParam().search(contenders, {}, budget_of(40), evaluator);
  EXPECT_EQ(result.evaluations.size(), 40U);
  EXPECT_LT(asked, 5'000'000U);
}

std::string name_of(const testing::TestParamInfo<Strategy>& info) {
  return std::string(info.param.name);
}
INSTANTIATE_TEST_SUITE_P(All, EveryStrategy,
                         testing::ValuesIn(strategies().begin(), strategies().end()), name_of);

TEST(Strategies, AreFoundByName) {
  EXPECT_EQ(find_strategy("greedy").search, &greedy);
  try {
    find_strategy("simplex");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
    EXPECT_NE(std::string(error.what()).find("surrogate, greedy"), std::string::npos);
  }
}

TEST(Strategies, ExhaustiveGoesInOrder) {
  const Space space = valley_space();
  const std::vector<Contender> contenders = {{&space, {}, {}}};
  Counting evaluator([](const Choice& choice) { return valley(choice.point); });
  Budget budget;
  budget.evaluations = 10;
  const SearchResult result = exhaustive(contenders, {}, budget, evaluator);
  const std::vector<Point> points = space.enumerate().points;
  for (std::size_t i = 0; i < 10; ++i) EXPECT_EQ(result.evaluations[i].choice.point, points[i]);
}

// The guided strategies on two spaces, of which one is hardly ever better.
class Guided : public testing::TestWithParam<Strategy> {
 protected:
  SearchResult search(int evaluations, double line_cost) {
    const auto cost = [&](const Choice& choice) {
      if (choice.space == 0) return valley(choice.point);
      return line_cost + std::abs(choice.point[0] - 40) / 4.0;
    };
    Counting evaluator(cost);
    Budget budget;
    budget.evaluations = evaluations;
    budget.least_share = 0.15;
    const std::vector<Contender> contenders = {{&plane_, {}, {}}, {&line_, {}, {}}};
    return GetParam().search(contenders, {}, budget, evaluator);
  }

  Space plane_ = valley_space();
  Space line_{{{"z", up_to(60)}}, {}};
};

TEST_P(Guided, FindsTheOptimumOfATurningValley) {
  int found = 0;
  for (std::uint64_t seed = 1; seed <= 10; ++seed) {
    Counting evaluator([](const Choice& choice) { return valley(choice.point); });
    Budget budget;
    budget.evaluations = 100;
    budget.seed = seed;
    const std::vector<Contender> contenders = {{&plane_, {}, {}}};
    if (best_of(GetParam().search(contenders, {}, budget, evaluator)) == 10.0) ++found;
  }
  // A local search is fooled by the turns now and then.
  EXPECT_GE(found, GetParam().name == "surrogate" ? 9 : 5) << "of 10, with 100 of 500 points";
}

TEST_P(Guided, ALosingSpaceKeepsItsShare) {
  for (const int evaluations : {20, 40, 80}) {
    const SearchResult result = search(evaluations, 100.0);
    EXPECT_GE(count_of(result, 1), evaluations * 15 / 100);
    EXPECT_LE(count_of(result, 1), evaluations / 2);
  }
}

TEST_P(Guided, ASpaceWithTheOptimumGetsMore) {
  const SearchResult result = search(80, 1.0);
  EXPECT_EQ(best_of(result), 1.0);
  EXPECT_GE(count_of(result, 0), 80 * 15 / 100);
}

INSTANTIATE_TEST_SUITE_P(Both, Guided,
                         testing::Values(find_strategy("surrogate"), find_strategy("greedy")),
                         name_of);

// A model that knows the valley but for a constant leads there at once; one that is wrong is
// corrected by the trials.
TEST(Surrogate, LearnsWhatItsModelIsWrongBy) {
  const Space space = valley_space();
  const auto search = [&](const std::function<double(const Point&)>& model, int evaluations) {
    std::vector<RankedPoint> ranked;
    for (const Point& point : space.enumerate().points) ranked.push_back({point, model(point)});
    std::stable_sort(ranked.begin(), ranked.end(), [](const RankedPoint& a, const RankedPoint& b) {
      return a.expected_cost < b.expected_cost;
    });
    const std::vector<Contender> contenders = {{&space, ranked, model}};
    Counting evaluator([](const Choice& choice) { return valley(choice.point); });
    Budget budget;
    budget.evaluations = evaluations;
    return best_of(surrogate(contenders, {}, budget, evaluator));
  };
  EXPECT_EQ(search([](const Point& point) { return 3.0 * valley(point); }, 1), 10.0);
  const auto wrong = [](const Point& point) { return 20.0 + point[0]; };
  EXPECT_EQ(search(wrong, 100), 10.0);
}

}  // namespace
}  // namespace w4tune

#include "search/space.h"

#include <gtest/gtest.h>

#include <set>

namespace w4tune {
namespace {

Space sample_space() {
  return Space({{"a", {1, 2, 4}}, {"b", {1, 2, 4}}, {"c", {0, 1}}},
               {{"a at most b", {"a", "b"}, [](auto v) { return v[0] <= v[1]; }},
                {"c needs b = 4", {"c", "b"}, [](auto v) { return v[0] == 0 || v[1] == 4; }}});
}

TEST(Space, EnumeratesExactlyThePointsThatKeepAllConstraints) {
  const Space space = sample_space();
  const Enumeration all = space.enumerate();
  std::set<Point> expected;
  for (const int a : {1, 2, 4}) {
    for (const int b : {1, 2, 4}) {
      for (const int c : {0, 1}) {
        if (a <= b && (c == 0 || b == 4)) expected.insert({a, b, c});
      }
    }
  }
  EXPECT_EQ(std::set<Point>(all.points.begin(), all.points.end()), expected);
  EXPECT_EQ(all.points.size(), expected.size()) << "no point twice";
}

TEST(Space, CountsEveryRejectedPointOnceForItsFirstReason) {
  const Enumeration all = sample_space().enumerate();
  EXPECT_EQ(all.raw_count, 18U);
  // The second rule has fewer combinations and is asked first. c = 1 with b < 4: (1,1), (1,2), each
  // with all values of a; then a > b: (2,1), (4,1), (4,2), with c = 0.
  EXPECT_EQ(all.rejected.at("c needs b = 4"), 6U);
  EXPECT_EQ(all.rejected.at("a at most b"), 3U);
  EXPECT_EQ(all.points.size() + 6U + 3U, all.raw_count);
}

TEST(Space, CutsSubtreesInsteadOfWalkingThem) {
  // 10^9 raw points: only a walk that prunes at the first two parameters can end.
  std::vector<Parameter> parameters;
  std::vector<int> ten = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9};
  for (int i = 0; i < 9; ++i) parameters.push_back({"p" + std::to_string(i), ten});
  int asked = 0;
  std::vector<Constraint> constraints = {
      {"sum", {"p0", "p1"}, [&asked](auto v) { return ++asked, v[0] + v[1] == 0; }}};
  for (int i = 2; i < 9; ++i) {
    constraints.push_back({"zero", {"p" + std::to_string(i)}, [](auto v) { return v[0] == 0; }});
  }
  const Enumeration all = Space(parameters, constraints).enumerate();
  EXPECT_EQ(all.points.size(), 1U);
  EXPECT_EQ(all.raw_count, 1000000000U);
  EXPECT_EQ(asked, 100);
}

// 10^8 raw points; each rule reads parameters that lie far apart in the list.
TEST(Space, ChoosesTheOrderInWhichConstraintsCutSoonest) {
  std::vector<Parameter> parameters;
  const std::vector<int> ten = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9};
  for (int i = 0; i < 8; ++i) parameters.push_back({"p" + std::to_string(i), ten});
  int asked = 0;
  std::vector<Constraint> constraints;
  for (int i = 0; i < 4; ++i) {
    constraints.push_back({"sum",
                           {"p" + std::to_string(i), "p" + std::to_string(7 - i)},
                           [&asked](auto v) { return ++asked, v[0] + v[1] == 18; }});
  }
  constraints.push_back({"never", {"p0", "p4"}, [](auto v) { return v[0] != v[1]; }});
  const Space space(parameters, constraints);
  const Enumeration all = space.enumerate();
  EXPECT_TRUE(all.points.empty());
  EXPECT_EQ(all.raw_count, 100'000'000U);
  std::uint64_t rejected = 0;
  for (const auto& [reason, count] : all.rejected) rejected += count;
  EXPECT_EQ(rejected, all.raw_count) << "each point once";
  EXPECT_LE(asked, 1000);
}

TEST(Space, PointsComeInTheOrderOfTheirValuesWhateverIsChosenFirst) {
  const Space space({{"a", {1, 2}}, {"b", {1, 2}}, {"c", {1, 2}}},
                    {{"a is not c", {"c", "a"}, [](auto v) { return v[0] != v[1]; }}});
  const std::vector<Point> expected = {{1, 1, 2}, {1, 2, 2}, {2, 1, 1}, {2, 2, 1}};
  EXPECT_EQ(space.enumerate().points, expected);
  Random random(1);
  EXPECT_EQ(space.points(4, 1, random), expected);
}

TEST(Space, DrawsDifferentValidPointsOfASpaceTooLargeToList) {
  std::vector<Parameter> parameters;
  for (int i = 0; i < 30; ++i) parameters.push_back({"p" + std::to_string(i), {0, 1, 2}});
  const Space space(parameters, {{"sum", {"p0", "p29"}, [](auto v) { return v[0] + v[1] == 3; }}});
  Random random(7);
  const std::vector<Point> drawn = space.points(1000, 50, random);
  EXPECT_EQ(drawn.size(), 50U);
  EXPECT_EQ(std::set<Point>(drawn.begin(), drawn.end()).size(), 50U);
  for (const Point& point : drawn) EXPECT_EQ(space.why_not(point), "");
  Random same(7);
  EXPECT_EQ(space.points(1000, 50, same), drawn);
}

TEST(Space, DrawsEveryPointSooner) {
  const Space space = sample_space();
  Random random(3);
  std::set<Point> drawn;
  for (int i = 0; i < 500; ++i) drawn.insert(space.draw(random).value());
  EXPECT_EQ(drawn.size(), space.enumerate().points.size());
  const Space empty({{"a", {1}}}, {{"never", {"a"}, [](auto) { return false; }}});
  EXPECT_FALSE(empty.draw(random).has_value());
}

// A recorded space: few points among 10^12, none of the others is looked at.
TEST(Space, OfPointsHoldsThoseAndNoOthers) {
  std::vector<Parameter> parameters;
  std::vector<int> hundred;
  for (int i = 0; i < 100; ++i) hundred.push_back(i);
  for (int i = 0; i < 6; ++i) parameters.push_back({"p" + std::to_string(i), hundred});
  const std::vector<Point> points = {{5, 5, 5, 5, 5, 5}, {0, 1, 2, 3, 4, 5}, {5, 5, 5, 5, 5, 6}};
  const Space space = Space::of_points(parameters, points);
  const Enumeration all = space.enumerate();
  EXPECT_EQ(all.points, (std::vector<Point>{points[1], points[0], points[2]}));
  EXPECT_EQ(all.raw_count, 1'000'000'000'000U);
  EXPECT_TRUE(space.contains(points[1]));
  EXPECT_EQ(space.why_not({0, 1, 2, 3, 4, 6}), "not among the points");
  EXPECT_EQ(space.neighbours(points[0]), (std::vector<Point>{points[2]}));
}

TEST(Space, SaysWhyAPointIsNotInIt) {
  const Space space = sample_space();
  EXPECT_EQ(space.why_not({4, 1, 0}), "a at most b");
  EXPECT_EQ(space.why_not({1, 3, 0}), "b: value not in the space");
  EXPECT_EQ(space.why_not({1, 4, 1}), "");
}

TEST(Space, ACopyKeepsItsConstraints) {
  Space copy({}, {});
  {
    const Space original = sample_space();
    copy = original;
  }
  EXPECT_EQ(copy.why_not({4, 1, 0}), "a at most b");
  EXPECT_EQ(copy.enumerate().rejected, sample_space().enumerate().rejected);
}

TEST(Space, NeighboursDifferInOneParameterAndAreValid) {
  const Space space = sample_space();
  const std::vector<Point> near = space.neighbours({2, 4, 0});
  const std::set<Point> expected = {{1, 4, 0}, {4, 4, 0}, {2, 2, 0}, {2, 4, 1}};
  EXPECT_EQ(std::set<Point>(near.begin(), near.end()), expected);
}

}  // namespace
}  // namespace w4tune

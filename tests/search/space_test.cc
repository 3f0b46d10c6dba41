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
  // a > b: (2,1), (4,1), (4,2), each with both values of c; then c = 1 with b < 4: (1,1), (1,2),
  // (2,2).
  EXPECT_EQ(all.rejected.at("a at most b"), 6U);
  EXPECT_EQ(all.rejected.at("c needs b = 4"), 3U);
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

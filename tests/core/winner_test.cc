#include "core/winner.h"

#include <gtest/gtest.h>

#include "w4tune/error.h"

namespace w4tune {
namespace {

std::vector<Winner> winners_at(std::initializer_list<int> tokens) {
  std::vector<Winner> winners;
  for (const int m : tokens) {
    winners.emplace_back();
    winners.back().m = m;
  }
  return winners;
}

TEST(Winner, IntervalsCoverEveryMOnce) {
  auto winners = winners_at({16, 1, 968});
  assign_intervals(winners);
  ASSERT_EQ(winners.size(), 3U);
  EXPECT_EQ(winners[0].m_lo, 1);
  EXPECT_EQ(winners[0].m_hi, 1);
  EXPECT_EQ(winners[1].m_lo, 2);
  EXPECT_EQ(winners[1].m_hi, 16);
  EXPECT_EQ(winners[2].m, 968);
  EXPECT_EQ(winners[2].m_lo, 17);
  EXPECT_EQ(winners[2].m_hi, kUnboundedM);
}

TEST(Winner, AnIntervalHoldsTheMItWasTunedAt) {
  auto winners = winners_at({2, 4, 8, 10, 15});
  assign_intervals(winners);
  for (const Winner& winner : winners) {
    EXPECT_LE(winner.m_lo, winner.m);
    EXPECT_GE(winner.m_hi, winner.m);
  }
  EXPECT_EQ(winners.front().m_lo, 1);
}

TEST(Winner, OneServesAllAndNoneServesNone) {
  auto one = winners_at({64});
  assign_intervals(one);
  EXPECT_EQ(one[0].m_lo, 1);
  EXPECT_EQ(one[0].m_hi, kUnboundedM);
  std::vector<Winner> none;
  assign_intervals(none);
  EXPECT_TRUE(none.empty());
}

TEST(Winner, ProvenanceRoundTrips) {
  for (const Provenance provenance : {Provenance::kMeasured, Provenance::kPredicted}) {
    EXPECT_EQ(parse_provenance(to_string(provenance)), provenance);
  }
  EXPECT_THROW(parse_provenance("guessed"), Error);
}

}  // namespace
}  // namespace w4tune

#include "tuner/ranking.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "w4tune/error.h"

namespace w4tune {
namespace {

constexpr std::size_t kWorkspace = std::size_t{64} << 20;

DeviceInfo a40() { return find_known_device("a40")->info; }

const Workload kWorkload{{Op::kGemm, 4096, 1024, 128, Dtype::kF16}, 10};

TEST(RankAll, RanksEveryFamilyThatServesAWorkload) {
  const std::vector<Workload> workloads = {
      {kWorkload.problem, 8}, kWorkload, {kWorkload.problem, 50}};
  const std::vector<Rankings> rankings = rank_all(workloads, a40(), kWorkspace, 2);
  ASSERT_EQ(rankings.size(), workloads.size());
  for (std::size_t i = 0; i < rankings.size(); ++i) {
    const Rankings& of_workload = rankings[i];
    std::size_t at = 0;
    for (const Family* family : families()) {
      if (!family->why_not(kWorkload.problem, a40()).empty()) continue;
      ASSERT_LT(at, of_workload.size());
      EXPECT_EQ(of_workload[at].family, family);
      // Without points, but with the reasons: gemv is for a few tokens, mma_tile for many.
      const int m = workloads[i].m;
      const bool has_points = family->id() == "gemv" ? m <= 8 : family->id() != "mma_tile";
      EXPECT_EQ(!of_workload[at].points.empty(), has_points);
      EXPECT_FALSE(of_workload[at].rejected.empty());
      ++at;
    }
    EXPECT_EQ(at, of_workload.size());
  }
}

TEST(RankAll, SaysWhyNoFamilyServes) {
  DeviceInfo turing = a40();
  turing.sm = 75;
  try {
    rank_all({kWorkload}, turing, kWorkspace, 1);
    FAIL() << "nothing runs there";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("mma_pipe: "), std::string::npos) << error.what();
  }
}

TEST(RankAll, OnlyTheNamedFamiliesCompete) {
  const std::vector<std::string> only = {"mma_tile"};
  const Workload many{kWorkload.problem, 968};
  const Rankings rankings = rank_all({many}, a40(), kWorkspace, 1, only).front();
  ASSERT_EQ(rankings.size(), 1U);
  EXPECT_EQ(rankings.front().family->id(), "mma_tile");
}

TEST(Choices, AreInOrderOfThePrediction) {
  const Rankings rankings = rank_all({kWorkload}, a40(), kWorkspace, 1).front();
  double last = 0.0;
  for (const Choice& choice : by_prediction(rankings)) {
    const Candidate candidate = candidate_at(rankings, choice);
    const double predicted =
        find_family(candidate.config.family)->cost(candidate, kWorkload, a40()).total_us;
    EXPECT_GE(predicted, last);
    last = predicted;
  }
  EXPECT_GT(last, 0.0);
}

TEST(Choices, StandForCandidatesOfTheirFamily) {
  const Rankings rankings = rank_all({kWorkload}, a40(), kWorkspace, 1).front();
  const Choice first = by_prediction(rankings).front();
  Candidate candidate = candidate_at(rankings, first);
  EXPECT_EQ(choices_near(rankings, candidate), std::vector<Choice>{first});
  candidate.config.family = "another";
  EXPECT_TRUE(choices_near(rankings, candidate).empty());
}

// What won at few tokens is tried at more, with the token tile that they need.
TEST(Choices, NearACandidateOfOtherTokensHaveAnotherTokenTile) {
  const Rankings few = rank_all({{kWorkload.problem, 8}}, a40(), kWorkspace, 1).front();
  const Rankings more = rank_all({{kWorkload.problem, 16}}, a40(), kWorkspace, 1).front();
  const Candidate candidate = candidate_at(few, by_prediction(few).front());
  const std::vector<Choice> near = choices_near(more, candidate);
  ASSERT_FALSE(near.empty());
  for (const Choice& choice : near) {
    EXPECT_TRUE(more[choice.space].space.contains(choice.point));
    Candidate same_tile = candidate_at(more, choice);
    EXPECT_EQ(same_tile.config.family, candidate.config.family);
    EXPECT_NE(same_tile.config.at("token_tile"), candidate.config.at("token_tile"));
  }
  EXPECT_EQ(candidate_at(more, near.front()).config.at("row_tile"),
            candidate.config.at("row_tile"));
}

}  // namespace
}  // namespace w4tune

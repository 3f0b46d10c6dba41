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
  const std::vector<Workload> workloads = {kWorkload, {kWorkload.problem, 50}};
  const std::vector<Rankings> rankings = rank_all(workloads, a40(), kWorkspace, 2);
  ASSERT_EQ(rankings.size(), workloads.size());
  for (const Rankings& of_workload : rankings) {
    std::size_t at = 0;
    for (const Family* family : families()) {
      if (!family->why_not(kWorkload.problem, a40()).empty()) continue;
      ASSERT_LT(at, of_workload.size());
      EXPECT_EQ(of_workload[at].family, family);
      EXPECT_FALSE(of_workload[at].points.empty());
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

TEST(Choices, StandForCandidatesOfTheirFamilyAndSpaceOnly) {
  const Rankings rankings = rank_all({kWorkload}, a40(), kWorkspace, 1).front();
  const Choice first = by_prediction(rankings).front();
  Candidate candidate = candidate_at(rankings, first);
  EXPECT_EQ(choice_of(rankings, candidate), first);
  Candidate outside = candidate;
  outside.schedule.split_k = 777;
  EXPECT_EQ(choice_of(rankings, outside), std::nullopt);
  candidate.config.family = "another";
  EXPECT_EQ(choice_of(rankings, candidate), std::nullopt);
}

}  // namespace
}  // namespace w4tune

// The run-off on synthetic samples with a known truth.
#include "tuner/run_off.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

namespace w4tune {
namespace {

// Rounds in which all drift alike, each with noise of its own.
std::vector<Finalist> sampled(const std::vector<double>& true_us, int rounds, double noise,
                              std::mt19937& random) {
  std::normal_distribution<double> own(0.0, noise);
  std::vector<Finalist> finalists(true_us.size());
  for (std::size_t i = 0; i < true_us.size(); ++i) {
    finalists[i].text = std::string("candidate ") + static_cast<char>('a' + i);
    finalists[i].smem_bytes = 1000;
    finalists[i].registers = 100;
  }
  for (int round = 0; round < rounds; ++round) {
    const double drift = 1.0 + 0.05 * round / rounds;
    for (std::size_t i = 0; i < true_us.size(); ++i) {
      finalists[i].samples.time_us.push_back(true_us[i] * drift * (1.0 + own(random)));
      finalists[i].samples.clock_mhz.push_back(1500.0 / drift);
    }
  }
  return finalists;
}

TEST(RunOff, FindsWhatIsFasterByTwoPercentBehindADriftOfFive) {
  std::mt19937 random(1);
  for (int turn = 0; turn < 100; ++turn) {
    const auto finalists = sampled({10.2, 10.0, 10.5}, 25, 0.003, random);
    const Verdict verdict = decide(finalists);
    EXPECT_EQ(verdict.winner, 1U);
    EXPECT_TRUE(verdict.tied.empty());
  }
}

// The bar is 95 % for two independent runs.
TEST(RunOff, TwoRunsAgreeOnAWinnerOrATie) {
  std::mt19937 random(2);
  std::uniform_real_distribution<double> gap(0.0, 0.03);
  int agreed = 0;
  constexpr int kTurns = 500;
  for (int turn = 0; turn < kTurns; ++turn) {
    const std::vector<double> truth = {10.0, 10.0 * (1.0 + gap(random)), 10.0 * (1.0 + gap(random)),
                                       10.0 * (1.0 + gap(random))};
    const Verdict first = decide(sampled(truth, 25, 0.004, random));
    const Verdict second = decide(sampled(truth, 25, 0.004, random));
    const auto holds = [](const Verdict& verdict, std::size_t i) {
      return verdict.winner == i || std::count(verdict.tied.begin(), verdict.tied.end(), i) > 0;
    };
    if (holds(first, second.winner) || holds(second, first.winner)) ++agreed;
  }
  EXPECT_GE(agreed, kTurns * 97 / 100);
}

TEST(RunOff, AmongEqualsTheIncumbentWinsThenFewerResourcesThenTheText) {
  std::mt19937 random(3);
  auto finalists = sampled({10.0, 10.0, 10.0}, 25, 0.003, random);
  EXPECT_EQ(decide(finalists).winner, 0U) << "by text";
  finalists[2].registers = 90;
  EXPECT_EQ(decide(finalists).winner, 2U);
  finalists[1].smem_bytes = 500;
  EXPECT_EQ(decide(finalists).winner, 1U);
  finalists[0].incumbent = true;
  const Verdict verdict = decide(finalists);
  EXPECT_EQ(verdict.winner, 0U);
  EXPECT_EQ(verdict.tied.size(), 2U);
}

TEST(RunOff, AnIncumbentThatIsSlowerLoses) {
  std::mt19937 random(4);
  auto finalists = sampled({10.0, 10.3}, 25, 0.003, random);
  finalists[1].incumbent = true;
  const Verdict verdict = decide(finalists);
  EXPECT_EQ(verdict.winner, 0U);
  EXPECT_TRUE(verdict.tied.empty());
}

TEST(RunOff, WhatIsTiedButNotEqualDoesNotWinByFewerResources) {
  std::mt19937 random(5);
  auto finalists = sampled({10.0, 10.06}, 25, 0.001, random);
  finalists[1].smem_bytes = 1;
  const Verdict verdict = decide(finalists);
  EXPECT_EQ(verdict.winner, 0U);
  EXPECT_EQ(verdict.tied, std::vector<std::size_t>{1}) << "0.6 % is within the tie share";
}

std::vector<Samples> samples_of(const std::vector<Finalist>& finalists) {
  std::vector<Samples> samples;
  for (const Finalist& finalist : finalists) samples.push_back(finalist.samples);
  return samples;
}

TEST(RunOff, SurvivorsLoseTheSlowAndAreHalvedButNeverBelowTwo) {
  std::mt19937 random(6);
  const std::vector<double> truth = {10.0, 10.02, 10.04, 10.05, 10.06, 12.0, 12.1, 15.0};
  const auto samples = samples_of(sampled(truth, 7, 0.001, random));
  const auto first = survivors(samples, {0, 1, 2, 3, 4, 5, 6, 7});
  EXPECT_EQ(first.size(), 4U) << "five are close, half of eight go on";
  for (const std::size_t i : first) EXPECT_LT(i, 5U);
  EXPECT_EQ(survivors(samples, {0, 1}).size(), 2U);
  EXPECT_EQ(survivors(samples, {7, 0}), std::vector<std::size_t>{0}) << "50 % slower";
}

TEST(RunOff, RoundsDropTheSlowAndSampleTheOthersToTheEnd) {
  const std::vector<double> truth = {10.0, 10.01, 10.02, 10.03, 20.0, 21.0, 22.0, 23.0, 30.0};
  std::mt19937 random(7);
  std::normal_distribution<double> noise(0.0, 0.002);
  std::vector<std::size_t> turns;
  const std::vector<Samples> samples = sample_in_rounds(8, 1, 25, [&](std::size_t i) {
    turns.push_back(i);
    return MeasuredGraph::Sample{truth[i] * (1.0 + noise(random)), 1500.0};
  });
  ASSERT_EQ(samples.size(), 9U);
  EXPECT_EQ(samples[8].time_us.size(), 25U) << "the baseline";
  for (std::size_t i = 4; i < 8; ++i) EXPECT_EQ(samples[i].time_us.size(), 5U) << i;
  int to_the_end = 0;
  for (std::size_t i = 0; i < 4; ++i) {
    EXPECT_TRUE(samples[i].time_us.size() == 10 || samples[i].time_us.size() == 25) << i;
    if (samples[i].time_us.size() == 25) ++to_the_end;
  }
  EXPECT_EQ(to_the_end, 2);
  EXPECT_EQ(std::vector<std::size_t>(turns.begin(), turns.begin() + 9),
            (std::vector<std::size_t>{0, 1, 2, 3, 4, 5, 6, 7, 8}));
  EXPECT_EQ(turns.back(), 8U) << "in turns to the end";
}

TEST(RunOff, RoundsNeedNoFinalist) {
  const std::vector<Samples> samples = sample_in_rounds(0, 1, 12, [](std::size_t) {
    return MeasuredGraph::Sample{1.0, 0.0};
  });
  EXPECT_EQ(samples.at(0).time_us.size(), 12U);
}

TEST(RunOff, WhatDroppedOutDoesNotWin) {
  std::mt19937 random(8);
  auto finalists = sampled({10.0, 9.0}, 25, 0.001, random);
  finalists[1].samples.time_us.resize(5);
  finalists[1].samples.clock_mhz.resize(5);
  EXPECT_EQ(decide(finalists).winner, 0U);
}

TEST(RunOff, ThrottledSamplesAreLeftOutUpToACap) {
  Samples samples;
  for (int i = 0; i < 20; ++i) {
    samples.time_us.push_back(10.0);
    samples.clock_mhz.push_back(1500.0);
  }
  for (const int i : {3, 7}) {
    samples.time_us[static_cast<std::size_t>(i)] = 14.0;
    samples.clock_mhz[static_cast<std::size_t>(i)] = 1000.0;
  }
  std::vector<bool> counts = steady(samples);
  EXPECT_EQ(std::count(counts.begin(), counts.end(), false), 2);
  EXPECT_FALSE(counts[3]);
  EXPECT_EQ(only_steady(samples).time_us, std::vector<double>(18, 10.0));
  EXPECT_EQ(only_steady(samples).clock_mhz.size(), 18U);
  EXPECT_FALSE(throttled_too_often(samples));
  for (std::size_t i = 10; i < 16; ++i) samples.clock_mhz[i] = 1300.0;
  counts = steady(samples);
  EXPECT_EQ(std::count(counts.begin(), counts.end(), false), 5) << "a quarter";
  EXPECT_FALSE(counts[3]) << "the slowest clocks first";
  EXPECT_TRUE(throttled_too_often(samples));
  samples.clock_mhz.assign(20, 0.0);
  counts = steady(samples);
  EXPECT_EQ(std::count(counts.begin(), counts.end(), false), 0) << "unknown clocks";
}

TEST(RunOff, RatiosAreOfTheRoundsThatBothHave) {
  const Samples a = {{2.0, 4.0, 6.0}, {0.0, 0.0, 0.0}};
  const Samples b = {{1.0, 2.0}, {0.0, 0.0}};
  EXPECT_EQ(ratios(a, b), (std::vector<double>{2.0, 2.0}));
  EXPECT_TRUE(ratios(a, Samples{}).empty());
}

}  // namespace
}  // namespace w4tune

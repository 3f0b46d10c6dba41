#include "tuner/fp16_intervals.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace w4tune {
namespace {

const Problem kGemm{Op::kGemm, 2048, 16384, 128, Dtype::kF16};

struct Times {
  int m;
  double ours;
  double baseline;  // 0: not measured
};

std::vector<Winner> winners_of(const Problem& problem, std::initializer_list<Times> all) {
  std::vector<Winner> winners;
  for (const Times& times : all) {
    Winner& winner = winners.emplace_back();
    winner.problem = problem;
    winner.m = times.m;
    winner.time_us_median = times.ours;
    winner.baseline_us = times.baseline;
  }
  assign_intervals(winners);
  return winners;
}

using Sentences = std::vector<std::string>;

TEST(Fp16Intervals, FasterIsByTheShareOfFp16sTimeThatWeTakeLonger) {
  EXPECT_DOUBLE_EQ(*fp16_faster_by(15.0, 12.0), 0.25);
  EXPECT_EQ(fp16_faster_by(12.0, 12.0), 0.0) << "a draw is not faster";
  EXPECT_EQ(fp16_faster_by(6.0, 12.0), 0.0);
  EXPECT_EQ(fp16_faster_by(6.0, 0.0), std::nullopt);
  EXPECT_EQ(fp16_text(0.25), "faster by 25.0 %");
  EXPECT_EQ(fp16_text(0.0), "not faster");
  EXPECT_EQ(fp16_text(std::nullopt), "unknown");
}

TEST(Fp16Intervals, WhatIsServedIsComparedBeItAComposite) {
  std::vector<Winner> winners = winners_of(kGemm, {{512, 9.0, 10.0}, {968, 15.0, 10.0}});
  winners.back().composite.emplace().time_us_median = 11.0;
  const auto intervals = fp16_intervals(winners);
  ASSERT_EQ(intervals.size(), 2U);
  EXPECT_NEAR(intervals[1].faster_by.value_or(0.0), 0.1, 1e-12);
}

TEST(Fp16Intervals, NeighboursWithTheSameAnswerAreOne) {
  const auto intervals = fp16_intervals(winners_of(kGemm, {{1, 5.0, 10.0},
                                                           {64, 9.0, 10.0},
                                                           {512, 10.0, 0.0},
                                                           {712, 10.5, 10.0},
                                                           {816, 12.5, 10.0},
                                                           {968, 11.0, 10.0},
                                                           {1024, 10.0, 10.0}}));
  const std::vector<Fp16Interval> expected = {{kGemm, 1, 64, 0.0},
                                              {kGemm, 65, 512, std::nullopt},
                                              {kGemm, 513, 968, 0.25},
                                              {kGemm, 969, kUnboundedM, 0.0}};
  EXPECT_EQ(intervals, expected);
  EXPECT_EQ(fp16_sentences(intervals),
            (Sentences{"FP16 is faster for M in 513..968 of gemm_n2048_k16384_g128_f16 (by up to "
                       "25.0 %)",
                       "FP16 was not measured for M in 65..512 of gemm_n2048_k16384_g128_f16: "
                       "whether it is faster there is unknown"}));
}

TEST(Fp16Intervals, AProblemOrAGapEndsAnInterval) {
  const Problem other{Op::kGemm, 4096, 1024, 128, Dtype::kF16};
  std::vector<Winner> winners = winners_of(other, {{10, 2.0, 1.0}});
  // A filter may leave winners out: what it hides is not spoken for.
  std::vector<Winner> apart = winners_of(kGemm, {{1, 2.0, 1.0}, {8, 1.0, 2.0}, {16, 2.0, 1.0}});
  apart.erase(apart.begin() + 1);
  winners.insert(winners.begin(), apart.rbegin(), apart.rend());
  EXPECT_EQ(fp16_sentences(fp16_intervals(winners)),
            (Sentences{"FP16 is faster for M = 1 of gemm_n2048_k16384_g128_f16 (by 100.0 %)",
                       "FP16 is faster for M from 9 on of gemm_n2048_k16384_g128_f16 (by up to "
                       "100.0 %)",
                       "FP16 is faster for every M of gemm_n4096_k1024_g128_f16 (by up to 100.0 "
                       "%)"}));
}

TEST(Fp16Intervals, SaysWhatIsNotFasterAndWhatIsNotKnown) {
  EXPECT_TRUE(fp16_sentences({}).empty());
  const auto sentences = [](std::initializer_list<Times> all) {
    return fp16_sentences(fp16_intervals(winners_of(kGemm, all)));
  };
  EXPECT_EQ(sentences({{1, 1.0, 2.0}, {8, 1.0, 2.0}}), Sentences{"FP16 is nowhere faster"});
  EXPECT_EQ(sentences({{1, 1.0, 2.0}, {8, 1.0, 0.0}}),
            (Sentences{"FP16 is nowhere faster where it was measured",
                       "FP16 was not measured for M from 2 on of gemm_n2048_k16384_g128_f16: "
                       "whether it is faster there is unknown"}));
  EXPECT_EQ(sentences({{1, 1.0, 0.0}, {8, 1.0, 0.0}}),
            Sentences{"FP16 was not measured: whether it is faster is unknown"});
}

TEST(Fp16Intervals, NamesTheBaselineAndItsNote) {
  Problem problem{Op::kGeglu, 4096, 1024, 128, Dtype::kBF16};
  std::vector<Winner> winners = winners_of(problem, {{8, 11.0, 10.0}});
  const std::vector<Winner> plain = winners_of(kGemm, {{8, 5.0, 10.0}});
  winners.insert(winners.end(), plain.begin(), plain.end());
  EXPECT_EQ(fp16_sentences(fp16_intervals(winners)),
            (Sentences{"FP16 is nowhere faster",
                       "BF16 is faster for every M of geglu_n4096_k1024_g128_bf16 (by up to 10.0 "
                       "%; BF16 GEMM of twice the rows, no activation)"}));
}

TEST(Fp16Intervals, OfARunAreJudgedByItsBaselines) {
  TuneResult result;
  for (const Winner& winner : winners_of(kGemm, {{8, 11.0, 99.0}, {16, 11.0, 99.0}})) {
    result.rows.emplace_back();
    result.rows.back().workload = {winner.problem, winner.m};
    result.rows.back().winner = winner;
  }
  result.rows.front().baseline = Baseline{"cublaslt_f16", "", {9.0, 10.0, 11.0}, {}};
  result.rows.emplace_back();  // untuned: serves nothing
  const auto intervals = fp16_intervals(result);
  ASSERT_EQ(intervals.size(), 2U);
  EXPECT_EQ(intervals[0].m_hi, 8);
  EXPECT_NEAR(*intervals[0].faster_by, 0.1, 1e-12);
  EXPECT_EQ(intervals[1].faster_by, std::nullopt);
}

TEST(Fp16Intervals, TextsAndJson) {
  EXPECT_EQ(interval_text(2, 8), "2-8");
  EXPECT_EQ(interval_text(8, 8), "8");
  EXPECT_EQ(interval_text(9, kUnboundedM), "9-");
  nlohmann::json document;
  add_fp16(document, {{kGemm, 1, 8, 0.5}, {kGemm, 9, kUnboundedM, std::nullopt}});
  EXPECT_EQ(document.at("fp16_summary").size(), 2U);
  EXPECT_EQ(document.at("fp16_intervals"), nlohmann::json::parse(R"([
    {"problem": "gemm_n2048_k16384_g128_f16", "m_lo": 1, "m_hi": 8, "fp16_faster_by": 0.5},
    {"problem": "gemm_n2048_k16384_g128_f16", "m_lo": 9, "m_hi": null, "fp16_faster_by": null}])"));
}

}  // namespace
}  // namespace w4tune

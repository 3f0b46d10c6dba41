// Which slices of a weight a composite may dequantise at a time, and the scratch they need.

#include "core/composite.h"

#include <gtest/gtest.h>

#include <string>

namespace w4tune {
namespace {

constexpr std::size_t kMega = std::size_t{1} << 20;
constexpr std::size_t kL2 = 50 * kMega;
const Problem kGemm{Op::kGemm, 16384, 2048, 128, Dtype::kF16};
const Problem kGeglu{Op::kGeglu, 16384, 2048, 128, Dtype::kF16};

TEST(Slices, ScratchIsTheSliceItsProductAndWhatTheLibraryMayUse) {
  const SliceScratch gemm = slice_scratch(kGemm, 4096, 968);
  EXPECT_EQ(gemm.weight_bytes, 16 * kMega);
  EXPECT_EQ(gemm.product_bytes, 0U) << "the product goes straight to y";
  EXPECT_EQ(gemm.total(), 16 * kMega + kMatmulWorkspaceBytes);
  const SliceScratch geglu = slice_scratch(kGeglu, 4096, 1024);
  EXPECT_EQ(geglu.product_bytes, 8 * kMega);
  EXPECT_EQ(slice_scratch(kGeglu, 16, 3).product_bytes % 256, 0U);
}

TEST(Slices, OneInHalfOfTheL2AndAllRowsWhereTheyFit) {
  const SlicePlan plan = plan_slices({kGemm, 968}, 128 * kMega, kL2);
  EXPECT_EQ(plan.slice_rows, (std::vector<int>{5632, 16384}))
      << "three even slices of 6400 at most";
  EXPECT_EQ(plan.left_out, "");
}

TEST(Slices, TheLimitBoundsTheLargest) {
  const SlicePlan plan = plan_slices({kGemm, 968}, 40 * kMega, kL2);
  EXPECT_EQ(plan.slice_rows, (std::vector<int>{5632, 8192}));
}

TEST(Slices, ASmallWeightIsOneSlice) {
  const Problem small{Op::kGemm, 4096, 1024, 128, Dtype::kF16};
  EXPECT_EQ(plan_slices({small, 512}, 64 * kMega, kL2).slice_rows, std::vector<int>{4096});
}

TEST(Slices, EveryPlanKeepsItsLimitAndIsWholeTiles) {
  for (const Problem& problem : {kGemm, kGeglu, Problem{Op::kGemm, 48, 16384, 16384, Dtype::kBF16},
                                 Problem{Op::kGeglu, 1040, 320, 32, Dtype::kF16}}) {
    for (const int m : {64, 65, 968, 4096}) {
      for (const std::size_t limit : {5 * kMega, 7 * kMega, 33 * kMega, 64 * kMega, 1024 * kMega}) {
        const SlicePlan plan = plan_slices({problem, m}, limit, 6 * kMega);
        EXPECT_EQ(plan.slice_rows.empty(), !plan.left_out.empty());
        EXPECT_LE(plan.slice_rows.size(), 2U);
        for (const int rows : plan.slice_rows) {
          EXPECT_EQ(rows % kSliceUnit, 0);
          EXPECT_GE(rows, kSliceUnit);
          EXPECT_LE(rows, weight_rows(problem));
          EXPECT_LE(slice_scratch(problem, rows, m).total(), limit) << to_string(problem);
        }
      }
    }
  }
}

TEST(Slices, WhatIsLeftOutSaysWhy) {
  EXPECT_EQ(plan_slices({kGemm, 63}, 64 * kMega, kL2).left_out, "fewer than 64 tokens");
  for (const std::size_t limit : {std::size_t{0}, kMega}) {
    const SlicePlan plan = plan_slices({kGemm, 64}, limit, kL2);
    EXPECT_TRUE(plan.slice_rows.empty());
    EXPECT_NE(plan.left_out.find("--max-workspace"), std::string::npos) << plan.left_out;
  }
}

}  // namespace
}  // namespace w4tune

#include "core/launch_plan.h"

#include <gtest/gtest.h>

namespace w4tune {
namespace {

constexpr Problem kProblem{Op::kGemm, 4096, 1024, 128, Dtype::kF16};
constexpr Footprint kFootprint{
    .row_tile = 128, .token_tile = 16, .depth_tile = 128, .threads = 256, .smem_bytes = 49152};

TEST(LaunchPlan, CoversEveryTileOnce) {
  const LaunchPlan plan = make_launch_plan(kFootprint, kProblem, 17, {.split_k = 1, .raster = 4});
  EXPECT_EQ(plan.grid, 32U * 2U);
  EXPECT_EQ(plan.threads, 256U);
  EXPECT_EQ(plan.smem_bytes, 49152U);
  EXPECT_EQ(plan.schedule, (Schedule{1, 4}));
  EXPECT_EQ(plan.partial_bytes, 0U);
  EXPECT_EQ(plan.counter_count, 0U);
}

TEST(LaunchPlan, ASplitNeedsPartialsAndCounters) {
  const LaunchPlan plan = make_launch_plan(kFootprint, kProblem, 16, {.split_k = 4, .raster = 1});
  EXPECT_EQ(plan.grid, 32U * 4U);
  EXPECT_EQ(plan.partial_bytes, 32U * 4U * 128U * 16U * 4U);
  EXPECT_EQ(plan.counter_count, 32U);
}

TEST(LaunchPlan, ClampsTheScheduleToTheProblem) {
  const LaunchPlan plan = make_launch_plan(kFootprint, kProblem, 1, {.split_k = 64, .raster = 0});
  EXPECT_EQ(plan.schedule, (Schedule{8, 1}));  // 1024 / 128 depth steps
  EXPECT_EQ(plan.grid, 32U * 8U);
  Problem shallow = kProblem;
  shallow.k = 64;
  EXPECT_EQ(make_launch_plan(kFootprint, shallow, 1, {.split_k = 2, .raster = 1}).schedule.split_k,
            1);
}

TEST(LaunchPlan, GegluHasTwiceTheRows) {
  Problem geglu = kProblem;
  geglu.op = Op::kGeglu;
  EXPECT_EQ(make_launch_plan(kFootprint, geglu, 1, {}).grid, 64U);
}

TEST(LaunchPlan, NeedsAToken) {
  EXPECT_DEATH(make_launch_plan(kFootprint, kProblem, 0, {}), "at least one token");
}

}  // namespace
}  // namespace w4tune

// The workspace's size and what happens when a launch needs more; the identity of streams.

#include "runtime/table.h"

#include <gtest/gtest.h>

#include <thread>

#include "runtime/workspace.h"
#include "tests/cache/samples.h"

namespace w4tune {
namespace {

// 16384 rows in tiles of 128: 128 tiles of rows; tokens in tiles of 16; split 4.
constexpr std::size_t kTileBytes = 128 * 16 * sizeof(float);

Table table_of(const std::vector<int>& tokens) {
  std::vector<Winner> winners;
  for (const int m : tokens) winners.push_back(samples::winner(m, Provenance::kMeasured));
  assign_intervals(winners);
  return {winners, true};
}

TEST(TableTest, TheWorkspaceHoldsTheLargestTunedNeed) {
  const WorkspaceNeed need = table_of({1, 64}).workspace_need();
  EXPECT_EQ(need.counter_count, 128U * 4);
  EXPECT_EQ(need.partial_bytes, 128U * 4 * 4 * kTileBytes);
}

TEST(TableTest, ASplitIsLoweredUntilItFits) {
  const Table table = table_of({64});
  const TunedKernel& kernel = table.kernels().front();
  const WorkspaceNeed need = table.workspace_need();
  EXPECT_EQ(fit_launch_plan(kernel, 1, need).schedule.split_k, 4);
  EXPECT_EQ(fit_launch_plan(kernel, 64, need).schedule.split_k, 4);
  // With counters enough: room for 16 partials of a row tile, 5 and then 8 token tiles to share it.
  WorkspaceNeed roomy = need;
  roomy.counter_count *= 8;
  EXPECT_EQ(fit_launch_plan(kernel, 80, roomy).schedule.split_k, 3);
  EXPECT_EQ(fit_launch_plan(kernel, 128, roomy).schedule.split_k, 2);
  EXPECT_EQ(fit_launch_plan(kernel, 512, roomy).schedule.split_k, 1);
  // Counters alone are too few.
  EXPECT_EQ(fit_launch_plan(kernel, 80, need).schedule.split_k, 1);
  for (int m = 1; m < 700; ++m) {
    const LaunchPlan plan = fit_launch_plan(kernel, m, need);
    EXPECT_LE(plan.partial_bytes, need.partial_bytes);
    EXPECT_LE(plan.counter_count, need.counter_count);
  }
}

TEST(TableTest, AnEmptyTableRefuses) {
  const Table table({}, true);
  EXPECT_FALSE(table.select(samples::problem(), 1));
  EXPECT_FALSE(table.owns(nullptr));
  EXPECT_EQ(table.workspace_need().partial_bytes, 0U);
}

TEST(WorkspaceTest, StreamsAreToldApartAsTheDriverOrdersThem) {
  EXPECT_EQ(stream_key(nullptr), stream_key(CU_STREAM_LEGACY));
  EXPECT_EQ(stream_key(CU_STREAM_PER_THREAD), stream_key(CU_STREAM_PER_THREAD));
  EXPECT_NE(stream_key(CU_STREAM_PER_THREAD), stream_key(nullptr));
  EXPECT_NE(stream_key(nullptr), 0U);
}

TEST(WorkspaceTest, ThePerThreadStreamsOfLiveThreadsDiffer) {
  const std::uintptr_t mine = stream_key(CU_STREAM_PER_THREAD);
  std::uintptr_t theirs = 0;
  std::thread([&] { theirs = stream_key(CU_STREAM_PER_THREAD); }).join();
  EXPECT_NE(mine, theirs);
}

}  // namespace
}  // namespace w4tune

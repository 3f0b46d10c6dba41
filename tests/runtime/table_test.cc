// The workspace's size and what happens when a launch needs more; the identity of streams.

#include "runtime/table.h"

#include <gtest/gtest.h>

#include <string>
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

LaunchPlan fit(const TunedKernel& kernel, int m, const WorkspaceNeed& available) {
  return fit_launch_plan(kernel.footprint, kernel.problem, m, kernel.schedule, available, 132);
}

TEST(TableTest, TheWorkspaceHoldsTheLargestTunedNeed) {
  const WorkspaceNeed need = table_of({1, 64}).workspace_need(84);
  EXPECT_EQ(need.counter_count, 128U * 4);
  EXPECT_EQ(need.partial_bytes, 128U * 4 * 4 * kTileBytes);
}

TEST(TableTest, ASplitIsLoweredUntilItFits) {
  const Table table = table_of({64});
  const TunedKernel& kernel = table.kernels().front();
  const WorkspaceNeed need = table.workspace_need(84);
  EXPECT_EQ(fit(kernel, 1, need).schedule.split_k, 4);
  EXPECT_EQ(fit(kernel, 64, need).schedule.split_k, 4);
  // With counters enough: room for 16 partials of a row tile, 5 and then 8 token tiles to share it.
  WorkspaceNeed roomy = need;
  roomy.counter_count *= 8;
  EXPECT_EQ(fit(kernel, 80, roomy).schedule.split_k, 3);
  EXPECT_EQ(fit(kernel, 128, roomy).schedule.split_k, 2);
  EXPECT_EQ(fit(kernel, 512, roomy).schedule.split_k, 1);
  // Counters alone are too few.
  EXPECT_EQ(fit(kernel, 80, need).schedule.split_k, 1);
  for (int m = 1; m < 700; ++m) {
    const LaunchPlan plan = fit(kernel, m, need);
    EXPECT_LE(plan.partial_bytes, need.partial_bytes);
    EXPECT_LE(plan.counter_count, need.counter_count);
  }
}

// A kernel for few tokens, and one with a composite beside it for many.
Table table_with_composite(std::size_t max_scratch_bytes) {
  std::vector<Winner> winners = {samples::winner(16, Provenance::kMeasured),
                                 samples::composite_winner(968)};
  assign_intervals(winners);
  return {winners, true, {}, max_scratch_bytes};
}

TEST(TableTest, ACompositeServesWhereItsScratchIsAdmitted) {
  const std::size_t scratch = samples::composite_winner(968).composite->scratch_bytes;
  const Table table = table_with_composite(scratch);
  EXPECT_EQ(table.scratch_bytes(), scratch);
  for (const int m : {16, 17, 63}) {
    const Selection few = table.select(samples::problem(), m);
    EXPECT_EQ(few.scratch_bytes(), 0U) << "few tokens are a kernel's in any interval";
    EXPECT_FLOAT_EQ(few.time_us, 30.1F);
  }
  for (const int m : {64, 968, 4096}) {
    const Selection many = table.select(samples::problem(), m);
    EXPECT_EQ(many.scratch_bytes(), scratch);
    EXPECT_FLOAT_EQ(many.time_us, 25.0F);
    EXPECT_STREQ(many.config(), "dequant_cublas slice_rows=4096");
    EXPECT_EQ(many.match, m == 968 ? Match::kExact : Match::kInterpolatedM);
  }
}

TEST(TableTest, WithoutItsScratchOrTheLibraryTheKernelServes) {
  const std::size_t scratch = samples::composite_winner(968).composite->scratch_bytes;
  for (const std::size_t limit : {std::size_t{0}, scratch - 1}) {  // 0: also without cuBLASLt
    const Table table = table_with_composite(limit);
    EXPECT_EQ(table.scratch_bytes(), 0U);
    const Selection many = table.select(samples::problem(), 968);
    EXPECT_EQ(many.scratch_bytes(), 0U);
    EXPECT_FLOAT_EQ(many.time_us, 30.1F);
    EXPECT_STREQ(many.config(), "mma_pipe row_tile=128 stages=4 | split_k=4 raster=2");
  }
}

TEST(TableTest, ACompositeThatCannotBeIsADamagedFile) {
  for (const int slice_rows : {8, 17, 32768}) {
    std::vector<Winner> winners = {samples::composite_winner(968)};
    winners[0].composite->slice_rows = slice_rows;
    assign_intervals(winners);
    samples::expect_error(ErrorCode::kDatabase, "is not possible",
                          [&] { const Table table(winners, true); });
  }
}

TEST(TableTest, AnEmptyTableRefuses) {
  const Table table({}, true);
  EXPECT_FALSE(table.select(samples::problem(), 1));
  EXPECT_FALSE(table.owns(nullptr));
  EXPECT_EQ(table.workspace_need(84).partial_bytes, 0U);
}

// Two default kernels, for few and for more tokens, of groups of 128 and of one group a row.
Table table_with_defaults(const std::vector<int>& tuned) {
  std::vector<Winner> defaults;
  for (const int group : {128, 2048}) {
    std::vector<Winner> winners;
    for (const int m : {16, 64}) {
      winners.push_back(samples::winner(m, Provenance::kPredicted));
      winners.back().problem.group_size = group;
      winners.back().candidate.schedule = {1, 1};
    }
    assign_intervals(winners);
    defaults.insert(defaults.end(), winners.begin(), winners.end());
  }
  std::vector<Winner> winners;
  for (const int m : tuned) winners.push_back(samples::winner(m, Provenance::kMeasured));
  assign_intervals(winners);
  return {winners, true, defaults};
}

TEST(TableTest, DefaultsServeAnySizesThatWereNotTuned) {
  const Table table = table_with_defaults({64});
  EXPECT_EQ(table.select(samples::problem(), 64).match, Match::kExact);
  Problem other = samples::problem();
  other.n = 48;
  other.k = 256;
  const Selection few = table.select(other, 3);
  EXPECT_EQ(few.match, Match::kDefault);
  EXPECT_EQ(few.n, 48);
  EXPECT_EQ(few.k, 256);
  EXPECT_EQ(few.time_us, 0.0F);  // nothing is known of these sizes
  EXPECT_NE(table.select(other, 17).kernel, few.kernel);
  EXPECT_EQ(table.select(other, 16).kernel, few.kernel);
  EXPECT_EQ(table.select(other, 5000).match, Match::kDefault);
  other.group_size = other.k;
  const Selection one_group = table.select(other, 3);
  EXPECT_EQ(one_group.match, Match::kDefault);
  EXPECT_NE(one_group.kernel, few.kernel);
  EXPECT_TRUE(table.owns(one_group.kernel));
}

TEST(TableTest, DefaultsRefuseWhatNoKernelCan) {
  const Table table = table_with_defaults({});
  Problem problem = samples::problem();
  problem.n = 17;
  EXPECT_EQ(table.select(problem, 1).match, Match::kRefused);
  EXPECT_NE(std::string(table.select(problem, 1).reason).find("multiple of 16"), std::string::npos);
  problem = samples::problem();
  problem.dtype = Dtype::kBF16;  // no default has it
  EXPECT_EQ(table.select(problem, 1).match, Match::kRefused);
  EXPECT_EQ(table.select(samples::problem(), 0).match, Match::kRefused);
}

TEST(TableTest, DefaultsSplitTheDepthUntilTheSmsAreBusy) {
  const Footprint footprint = samples::winner(16, Provenance::kPredicted).footprint;
  Problem problem{.op = Op::kGemm, .n = 1024, .k = 4096, .group_size = 128, .dtype = Dtype::kF16};
  constexpr int kSms = 84;
  // 8 tiles of rows: 11 ways reach 84 CTAs. 64 steps of depth allow 16.
  EXPECT_EQ(default_schedule(footprint, problem, 16, kSms).split_k, 11);
  EXPECT_EQ(default_schedule(footprint, problem, 160, kSms).split_k, 2);
  EXPECT_EQ(default_schedule(footprint, problem, 1000, kSms).split_k, 1);
  problem.k = 256;
  EXPECT_EQ(default_schedule(footprint, problem, 16, kSms).split_k, 1);
  // What the workspace is made for is enough for every such split.
  const WorkspaceNeed need = table_with_defaults({}).workspace_need(kSms);
  for (int n = 16; n <= 40000; n += 240) {
    for (const int k : {64, 2048, 16384}) {
      for (const int m : {1, 17, 50, 300}) {
        const Problem any{Op::kGeglu, n, k, 32, Dtype::kF16};
        const Schedule schedule = default_schedule(footprint, any, m, kSms);
        const LaunchPlan plan = make_launch_plan(footprint, any, m, schedule);
        EXPECT_LE(plan.partial_bytes, need.partial_bytes);
        EXPECT_LE(plan.counter_count, need.counter_count);
      }
    }
  }
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

// Opening and selecting without a GPU: files are made with Store and opened by device name.

#include "w4tune/dispatcher.h"

#include <gtest/gtest.h>

#include <string>
#include <utility>

#include "gpu/device.h"
#include "tests/runtime/sample_cache.h"
#include "w4tune/error.h"

namespace w4tune {
namespace {

using samples::add_winners;
using samples::expect_error;
using samples::Folder;
using samples::gpu;
using samples::problem;

Dispatcher open_a40(const std::string& path) {
  return Dispatcher::open(path, {.device = -1, .device_name = "a40"});
}

class DispatcherTest : public testing::Test {
 protected:
  Folder folder_;
  std::string path_ = folder_.file("w4tune.db");
};

TEST_F(DispatcherTest, EveryTokenCountIsServedByItsInterval) {
  add_winners(path_, samples::device());
  const Dispatcher dispatcher = open_a40(path_);
  const auto intervals = dispatcher.intervals();
  ASSERT_EQ(intervals.size(), 4U);
  for (int m = 1; m <= 3000; ++m) {
    const Selection selection = dispatcher.select(problem(), m);
    ASSERT_TRUE(selection);
    const std::size_t expected = m <= 1 ? 0 : m <= 16 ? 1 : m <= 128 ? 2 : 3;
    const ServedInterval& interval = intervals[expected];
    EXPECT_LE(interval.m_lo, m);
    EXPECT_GE(interval.m_hi, m);
    const Match match = m == 1                             ? Match::kPredicted
                        : m == 16 || m == 128 || m == 1024 ? Match::kExact
                                                           : Match::kInterpolatedM;
    EXPECT_EQ(selection.match, match) << m;
    EXPECT_STREQ(selection.reason, "");
    EXPECT_EQ(selection.config(), interval.config);
  }
  EXPECT_EQ(intervals[3].m_hi, kUnboundedTokens);
  EXPECT_TRUE(dispatcher.select(problem(), kUnboundedTokens));
}

TEST_F(DispatcherTest, AnIntervalTellsItsEvidence) {
  add_winners(path_, samples::device());
  const ServedInterval interval = open_a40(path_).intervals()[1];
  EXPECT_EQ(interval.problem, problem());
  EXPECT_EQ(interval.m, 16);
  EXPECT_EQ(interval.m_lo, 2);
  EXPECT_EQ(interval.match, Match::kExact);
  EXPECT_EQ(interval.config, "mma_pipe row_tile=128 stages=4 | split_k=4 raster=2");
  EXPECT_EQ(interval.time_us_median, 30.1);
  EXPECT_EQ(interval.floor_us, 24.5);
  EXPECT_EQ(interval.baseline_us, 61.0);
}

TEST_F(DispatcherTest, TheScratchMayBeForbidden) {
  {
    Store store = Store::open(path_, Store::Mode::kReadWrite);
    const std::int64_t run = store.begin_run(samples::run_info());
    store.put_compilation(samples::config(), samples::compilation());
    store.put_winners(run, problem(), {samples::composite_winner(968)});
  }
  const ServedInterval interval = open_a40(path_).intervals()[1];
  EXPECT_GT(interval.scratch_bytes, 0U);
  EXPECT_EQ(interval.m_lo, 64) << "a kernel serves fewer";
  EXPECT_EQ(interval.config, "dequant_cublas slice_rows=4096");
  const Dispatcher without =
      Dispatcher::open(path_, {.device = -1, .device_name = "a40", .max_scratch_bytes = 0});
  ASSERT_EQ(without.intervals().size(), 1U);
  EXPECT_EQ(without.intervals()[0].scratch_bytes, 0U);
  EXPECT_EQ(without.select(problem(), 968).scratch_bytes(), 0U);
}

TEST_F(DispatcherTest, PredictedRowsAreNeverExact) {
  add_winners(path_, samples::device(), {{16, Provenance::kPredicted}});
  const Dispatcher dispatcher = open_a40(path_);
  for (const int m : {1, 16, 17}) {
    EXPECT_EQ(dispatcher.select(problem(), m).match, Match::kPredicted);
  }
}

TEST_F(DispatcherTest, RefusesWhatTheFileDoesNotServe) {
  add_winners(path_, samples::device());
  const Dispatcher dispatcher = open_a40(path_);
  Problem other = problem();
  other.dtype = Dtype::kBF16;
  const Selection unknown = dispatcher.select(other, 16);
  EXPECT_FALSE(unknown);
  EXPECT_EQ(unknown.match, Match::kRefused);
  EXPECT_NE(std::string(unknown.reason), "");
  EXPECT_STREQ(unknown.config(), "");
  for (const int m : {0, -1}) EXPECT_EQ(dispatcher.select(problem(), m).match, Match::kRefused);
}

TEST_F(DispatcherTest, ARelativeServesWhereTheFileLacksTheGpu) {
  add_winners(path_, gpu("NVIDIA A10", 86, 72));
  add_winners(path_, gpu("NVIDIA GeForce RTX 3090", 86, 82));
  add_winners(path_, gpu("NVIDIA A100-SXM4-80GB", 80, 108));
  const Dispatcher dispatcher = open_a40(path_);
  EXPECT_EQ(dispatcher.device_name(), "NVIDIA GeForce RTX 3090");
  EXPECT_EQ(dispatcher.select(problem(), 16).match, Match::kSameArch);
  EXPECT_EQ(dispatcher.select(problem(), 1).match, Match::kPredicted);
}

TEST_F(DispatcherTest, ItsOwnRowsComeFirst) {
  add_winners(path_, gpu("NVIDIA RTX A6000", 86, 84));
  add_winners(path_, samples::device());
  const Dispatcher dispatcher = open_a40(path_);
  EXPECT_EQ(dispatcher.device_name(), "NVIDIA A40");
  EXPECT_EQ(dispatcher.select(problem(), 16).match, Match::kExact);
}

TEST_F(DispatcherTest, AGpuThatOnlyTheFileKnowsIsFoundByName) {
  add_winners(path_, gpu("NVIDIA Secret 1", 86, 10));
  EXPECT_EQ(Dispatcher::open(path_, {.device = -1, .device_name = "nvidia secret 1"}).device_name(),
            "NVIDIA Secret 1");
}

TEST_F(DispatcherTest, ErrorsNameTheGpuTheFileAndTheRemedy) {
  add_winners(path_, gpu("NVIDIA A100-SXM4-80GB", 80, 108));
  for (const char* text : {"NVIDIA A40 (sm 86, 84 SMs)", path_.c_str(),
                           "NVIDIA A100-SXM4-80GB (sm 80, 108 SMs)", "w4tune --gpu a40"}) {
    expect_error(ErrorCode::kNotFound, text, [&] { open_a40(path_); });
  }
  expect_error(ErrorCode::kNotFound, "'no such gpu'",
               [&] { Dispatcher::open(path_, {.device = -1, .device_name = "no such gpu"}); });
  expect_error(ErrorCode::kNotFound, "missing.db", [&] { open_a40(folder_.file("missing.db")); });
  samples::write_file(folder_.file("text"), "this is no cache, but long enough to be read as one");
  expect_error(ErrorCode::kDatabase, "text", [&] { open_a40(folder_.file("text")); });
}

TEST_F(DispatcherTest, WithoutAGpuOpenSaysSo) {
  if (device_count() > 0) GTEST_SKIP() << "this machine has a GPU";
  add_winners(path_, samples::device());
  expect_error(
      no_device_reason().rfind("no GPU", 0) == 0 ? ErrorCode::kNoDevice : ErrorCode::kEnvironment,
      no_device_reason(), [&] { Dispatcher::open(path_); });
}

TEST_F(DispatcherTest, AWinnerThatCannotBeIsADamagedFile) {
  Store store = Store::open(path_, Store::Mode::kReadWrite);
  const std::int64_t run = store.begin_run(samples::run_info());
  store.put_compilation(samples::config(), samples::compilation());
  Winner winner = samples::winner(16, Provenance::kMeasured);
  winner.footprint.token_tile = 0;
  store.put_winners(run, problem(), {winner});
  expect_error(ErrorCode::kDatabase, "damaged", [&] { open_a40(path_); });
}

TEST_F(DispatcherTest, LaunchNamesTheOperandThatDoesNotFit) {
  add_winners(path_, samples::device());
  const Dispatcher dispatcher = open_a40(path_);
  const Selection selection = dispatcher.select(problem(), 16);
  alignas(16) char memory[32];
  const LaunchOperands good{
      .x = memory, .w = memory, .scales = memory, .y = memory, .m = 16, .ldx = 0, .ldy = 0};
  const auto expect_refusal = [&](const char* text, auto change) {
    LaunchOperands operands = good;
    change(operands);
    expect_error(ErrorCode::kInvalidArgument, text,
                 [&] { dispatcher.launch(selection, operands, nullptr); });
  };
  expect_refusal("x is null", [](LaunchOperands& o) { o.x = nullptr; });
  expect_refusal("w = ", [&](LaunchOperands& o) { o.w = memory + 8; });
  expect_refusal("scales = ", [&](LaunchOperands& o) { o.scales = memory + 2; });
  expect_refusal("y = ", [&](LaunchOperands& o) { o.y = memory + 1; });
  expect_refusal("m = 0", [](LaunchOperands& o) { o.m = 0; });
  expect_refusal("m = 2147483647", [](LaunchOperands& o) { o.m = 2147483647; });
  expect_refusal("ldx = 2040", [](LaunchOperands& o) { o.ldx = 2040; });
  expect_refusal("ldx = 2052", [](LaunchOperands& o) { o.ldx = 2052; });
  expect_refusal("ldy = -8", [](LaunchOperands& o) { o.ldy = -8; });
  expect_error(ErrorCode::kNoDevice, "for looking only",
               [&] { dispatcher.launch(selection, good, nullptr); });
}

TEST_F(DispatcherTest, LaunchRefusesAForeignOrEmptySelection) {
  add_winners(path_, samples::device());
  const Dispatcher one = open_a40(path_);
  const Dispatcher other = open_a40(path_);
  expect_error(ErrorCode::kInvalidArgument, "another Dispatcher",
               [&] { one.launch(other.select(problem(), 16), {}, nullptr); });
  expect_error(ErrorCode::kInvalidArgument, "m must be at least 1",
               [&] { one.launch(one.select(problem(), 0), {}, nullptr); });
}

TEST_F(DispatcherTest, PackingOnTheGpuChecksItsArguments) {
  add_winners(path_, samples::device());
  const Dispatcher dispatcher = open_a40(path_);
  alignas(16) char memory[32];
  const UnpackedWeight weight{
      .nibbles = memory, .scales = memory, .encoding = NibbleEncoding::kSigned};
  expect_error(ErrorCode::kInvalidArgument, "packed_w = ", [&] {
    dispatcher.pack_weights(problem(), weight, memory + 4, memory, nullptr);
  });
  expect_error(ErrorCode::kInvalidArgument, "nibbles is null",
               [&] { dispatcher.pack_weights(problem(), {}, memory, memory, nullptr); });
  expect_error(ErrorCode::kInvalidArgument, "N = 0",
               [&] { dispatcher.pack_weights(Problem{}, weight, memory, memory, nullptr); });
}

TEST_F(DispatcherTest, SelectionsOutliveAMove) {
  add_winners(path_, samples::device());
  Dispatcher first = open_a40(path_);
  const Selection selection = first.select(problem(), 16);
  const Dispatcher second = std::move(first);
  EXPECT_EQ(second.select(problem(), 16).kernel, selection.kernel);
}

}  // namespace
}  // namespace w4tune

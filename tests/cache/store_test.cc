#include "cache/store.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <csignal>
#include <limits>
#include <string>
#include <vector>

#include "tests/cache/samples.h"
#include "tests/core/sample_calibration.h"

namespace w4tune {
namespace {

using samples::Folder;

void expect_same(const Trial& a, const Trial& b) {
  EXPECT_EQ(a.workload, b.workload);
  EXPECT_EQ(a.candidate, b.candidate);
  EXPECT_EQ(a.outcome, b.outcome);
  EXPECT_EQ(a.detail, b.detail);
  EXPECT_EQ(a.error, b.error);
  EXPECT_EQ(a.time_us, b.time_us);
  EXPECT_EQ(a.clock_mhz, b.clock_mhz);
  EXPECT_EQ(a.compilation_key, b.compilation_key);
}

class StoreTest : public testing::Test {
 protected:
  StoreTest() : store_(Store::open(":memory:", Store::Mode::kReadWrite)) {
    store_.put_compilation(samples::config(), samples::compilation());
    run_ = store_.begin_run(samples::run_info());
  }

  [[nodiscard]] std::vector<Winner> winners() const { return store_.winners(samples::device()); }

  Store store_;
  std::int64_t run_ = 0;
};

TEST_F(StoreTest, CompilationsComeBack) {
  const auto found = store_.find_compilation("key-1");
  ASSERT_TRUE(found);
  EXPECT_EQ(found->key, "key-1");
  EXPECT_EQ(found->arch, "sm_86");
  EXPECT_EQ(found->cubin, "cubin of key-1");
  EXPECT_EQ(found->log, "ptxas info");
  EXPECT_EQ(found->registers, 128);
  EXPECT_EQ(found->spill_bytes, 8);
  EXPECT_EQ(found->static_smem_bytes, 16);
  EXPECT_FALSE(store_.find_compilation("key-2"));
}

TEST_F(StoreTest, FailedCompilationsComeBack) {
  auto failed = samples::compilation("key-2", "");
  failed.log = "error: no such thing\nsecond line";
  store_.put_compilation(samples::config(), failed);
  const auto found = store_.find_compilation("key-2");
  ASSERT_TRUE(found);
  EXPECT_FALSE(found->ok());
  EXPECT_EQ(found->log, failed.log);
}

TEST_F(StoreTest, FirstCompilationOfAKeyStays) {
  store_.put_compilation(samples::config(), samples::compilation("key-1", "another"));
  EXPECT_EQ(store_.find_compilation("key-1")->cubin, "cubin of key-1");
  store_.put_compilation(samples::config(), samples::compilation("key-2"));  // shares the cubin
  EXPECT_EQ(store_.find_compilation("key-2")->cubin, "cubin of key-1");
}

TEST_F(StoreTest, TrialsComeBackInOrder) {
  Trial failed = samples::trial(64);
  failed.outcome = Outcome::kWrongResult;
  failed.detail = "y[3, 5] is inf";
  failed.error = {.worst_ratio = std::numeric_limits<double>::infinity(),
                  .relative_norm = 2.0,
                  .max_abs = 1e300};
  failed.time_us = {};
  failed.clock_mhz = {};
  Trial invalid = samples::trial(32);
  invalid.outcome = Outcome::kInvalidConfig;
  invalid.compilation_key = "";
  for (const auto& trial : {samples::trial(), failed, invalid}) store_.put_trial(run_, trial);
  const auto found = store_.trials(run_, samples::trial().workload);
  ASSERT_EQ(found.size(), 3u);
  expect_same(found[0], samples::trial());
  expect_same(found[1], failed);
  expect_same(found[2], invalid);
  EXPECT_TRUE(store_.trials(run_, samples::trial(128, 17).workload).empty());
}

TEST_F(StoreTest, NanErrorsComeBack) {
  Trial trial = samples::trial();
  trial.error.relative_norm = std::nan("");
  store_.put_trial(run_, trial);
  const auto found = store_.trials(run_, trial.workload);
  ASSERT_EQ(found.size(), 1u);
  EXPECT_TRUE(std::isnan(found[0].error.relative_norm));
  EXPECT_EQ(found[0].error.max_abs, trial.error.max_abs);
}

TEST_F(StoreTest, FirstTrialOfACandidateStays) {
  Trial again = samples::trial();
  again.time_us = {1.0};
  store_.put_trial(run_, samples::trial());
  store_.put_trial(run_, again);
  again.candidate.schedule.split_k = 8;
  store_.put_trial(run_, again);
  const auto found = store_.trials(run_, again.workload);
  ASSERT_EQ(found.size(), 2u);
  expect_same(found[0], samples::trial());
}

TEST_F(StoreTest, ACandidateThatFailsLaterHasFailed) {
  store_.put_trial(run_, samples::trial());
  Trial failed = samples::trial();
  failed.outcome = Outcome::kTimeout;
  failed.detail = "hung in the run-off";
  failed.time_us.clear();
  store_.put_trial(run_, failed);
  store_.put_trial(run_, samples::trial());
  const auto found = store_.trials(run_, failed.workload);
  ASSERT_EQ(found.size(), 1u);
  failed.time_us = samples::trial().time_us;
  expect_same(found[0], failed);
  Trial other = failed;
  other.outcome = Outcome::kLaunchError;
  store_.put_trial(run_, other);
  EXPECT_EQ(store_.trials(run_, failed.workload)[0].outcome, Outcome::kTimeout);
}

TEST_F(StoreTest, ATrialNeedsItsCompilation) {
  Trial trial = samples::trial();
  trial.compilation_key = "key-9";
  samples::expect_error(ErrorCode::kInternal, "FOREIGN KEY",
                        [&] { store_.put_trial(run_, trial); });
  EXPECT_TRUE(store_.trials(run_, trial.workload).empty());
}

TEST_F(StoreTest, ARunFindsWhatEqualRunsStored) {
  const Workload workload = samples::trial().workload;
  store_.put_trial(run_, samples::trial());
  store_.put_baseline(run_, workload,
                      {.name = "cublaslt_f16", .detail = "", .time_us = {1.0}, .clock_mhz = {2.0}});
  const auto found_by = [&](const RunInfo& info) {
    return store_.trials(store_.begin_run(info), workload).size();
  };
  auto info = samples::run_info();
  info.started_at = "later";
  info.device.dram_gbps = 1.0;  // not part of what identifies a device
  EXPECT_EQ(found_by(info), 1u);
  EXPECT_EQ(found_by(samples::run_info("source-2")), 0u);
  EXPECT_TRUE(store_.find_baseline(store_.begin_run(samples::run_info("source-2")), workload,
                                   "cublaslt_f16"));
  info.protocol_hash = "protocol-2";
  EXPECT_EQ(found_by(info), 0u);
  EXPECT_FALSE(store_.find_baseline(store_.begin_run(info), workload, "cublaslt_f16"));
  info = samples::run_info();
  info.device.name = "NVIDIA H200";
  EXPECT_EQ(found_by(info), 0u);
}

TEST_F(StoreTest, TrialSetsAreWhatTrialsHaveInCommon) {
  EXPECT_TRUE(store_.trial_sets().empty());
  store_.put_compilation(samples::config(), samples::compilation());
  const std::int64_t first = store_.begin_run(samples::run_info());
  store_.put_trial(first, samples::trial(128, 16));
  store_.put_trial(first, samples::trial(64, 16));
  store_.put_trial(first, samples::trial(128, 1));
  store_.put_trial(store_.begin_run(samples::run_info("source-2")), samples::trial(128, 16));
  const std::vector<TrialSet> sets = store_.trial_sets();
  ASSERT_EQ(sets.size(), 3U);
  EXPECT_EQ(sets[0].workload, (Workload{samples::problem(), 16}));
  EXPECT_EQ(sets[1].workload, (Workload{samples::problem(), 1}));
  EXPECT_EQ(sets[2].run.source_hash, "source-2");
  EXPECT_EQ(sets[0].run.device.name, samples::device().name);
  EXPECT_EQ(store_.trials(store_.begin_run(sets[0].run), sets[0].workload).size(), 2U);
}

TEST_F(StoreTest, LatestBaselineStays) {
  const Workload workload = samples::trial().workload;
  Baseline baseline{.name = "cublaslt_f16",
                    .detail = "algo 3",
                    .time_us = {60.5, 61.5},
                    .clock_mhz = {1700.0, 1701.0}};
  EXPECT_FALSE(store_.find_baseline(run_, workload, "cublaslt_f16"));
  store_.put_baseline(run_, workload, baseline);
  baseline.detail = "algo 4";
  store_.put_baseline(run_, workload, baseline);
  const auto found = store_.find_baseline(run_, workload, "cublaslt_f16");
  ASSERT_TRUE(found);
  EXPECT_EQ(found->name, baseline.name);
  EXPECT_EQ(found->detail, "algo 4");
  EXPECT_EQ(found->time_us, baseline.time_us);
  EXPECT_EQ(found->clock_mhz, baseline.clock_mhz);
  EXPECT_FALSE(store_.find_baseline(run_, workload, "other"));
}

TEST_F(StoreTest, WinnersComeBack) {
  Winner winner = samples::winner(16, Provenance::kMeasured);
  winner.tie_set = {{.config = samples::config(64), .schedule = {.split_k = 1, .raster = 8}},
                    {.config = samples::config(32), .schedule = {}}};
  store_.put_winners(run_, samples::problem(), {winner});
  const auto found = winners();
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found[0].problem, winner.problem);
  EXPECT_EQ(found[0].m, 16);
  EXPECT_EQ(found[0].m_lo, 1);
  EXPECT_EQ(found[0].m_hi, kUnboundedM);
  EXPECT_EQ(found[0].provenance, winner.provenance);
  EXPECT_EQ(found[0].candidate, winner.candidate);
  EXPECT_EQ(found[0].footprint, winner.footprint);
  EXPECT_EQ(found[0].compilation_key, winner.compilation_key);
  EXPECT_EQ(found[0].registers, 128);
  EXPECT_EQ(found[0].spill_bytes, 8);
  EXPECT_EQ(found[0].time_us_median, winner.time_us_median);
  EXPECT_EQ(found[0].time_us, winner.time_us);
  EXPECT_EQ(found[0].clock_mhz, winner.clock_mhz);
  EXPECT_EQ(found[0].error, winner.error);
  EXPECT_EQ(found[0].floor_us, winner.floor_us);
  EXPECT_EQ(found[0].baseline_us, winner.baseline_us);
  EXPECT_EQ(found[0].tie_set, winner.tie_set);
}

TEST_F(StoreTest, EveryFlagOfAFootprintComesBack) {
  for (bool Footprint::*const flag : {&Footprint::cluster_split, &Footprint::token_map,
                                      &Footprint::dependent, &Footprint::persistent}) {
    Winner winner = samples::winner(16, Provenance::kMeasured);
    winner.footprint.*flag = true;
    store_.put_winners(run_, samples::problem(), {winner});
    ASSERT_EQ(winners().size(), 1U);
    EXPECT_EQ(winners()[0].footprint, winner.footprint);
  }
}

TEST_F(StoreTest, MeasuredHidesPredictedAtOneM) {
  store_.put_winners(
      run_, samples::problem(),
      {samples::winner(64, Provenance::kPredicted), samples::winner(16, Provenance::kPredicted),
       samples::winner(1, Provenance::kPredicted)});
  store_.put_winners(
      run_, samples::problem(),
      {samples::winner(16, Provenance::kMeasured), samples::winner(32, Provenance::kMeasured)});
  // A later prediction does not come back in front.
  store_.put_winners(run_, samples::problem(), {samples::winner(16, Provenance::kPredicted)});
  const auto found = winners();
  ASSERT_EQ(found.size(), 4u);
  const std::vector<std::vector<int>> expected = {
      {1, 1, 1}, {16, 2, 16}, {32, 17, 32}, {64, 33, kUnboundedM}};
  for (std::size_t i = 0; i < expected.size(); ++i) {
    EXPECT_EQ((std::vector{found[i].m, found[i].m_lo, found[i].m_hi}), expected[i]);
    const bool measured = found[i].m == 16 || found[i].m == 32;
    EXPECT_EQ(found[i].provenance, measured ? Provenance::kMeasured : Provenance::kPredicted);
  }
}

TEST_F(StoreTest, WinnersAreSortedByProblemAndReplaced) {
  Winner geglu = samples::winner(8, Provenance::kMeasured);
  geglu.problem.op = Op::kGeglu;
  store_.put_winners(run_, geglu.problem, {geglu});
  store_.put_winners(run_, samples::problem(), {samples::winner(8, Provenance::kMeasured)});
  Winner better = samples::winner(8, Provenance::kMeasured);
  better.time_us_median = 1.0;
  store_.put_winners(run_, samples::problem(), {better});
  const auto found = winners();
  ASSERT_EQ(found.size(), 2u);
  EXPECT_EQ(found[0].problem, samples::problem());
  EXPECT_EQ(found[0].time_us_median, 1.0);
  EXPECT_EQ(found[1].problem, geglu.problem);
}

TEST_F(StoreTest, WinnersAreStoredAsAWhole) {
  samples::expect_error(ErrorCode::kInternal, "FOREIGN KEY", [&] {
    store_.put_winners(run_, samples::problem(),
                       {samples::winner(1, Provenance::kMeasured),
                        samples::winner(2, Provenance::kMeasured, "key-9")});
  });
  EXPECT_TRUE(winners().empty());
}

TEST_F(StoreTest, FinishedIsAMeasuredWinnerOfAnEqualRun) {
  store_.put_winners(
      run_, samples::problem(),
      {samples::winner(8, Provenance::kPredicted), samples::winner(16, Provenance::kMeasured)});
  const auto finished = [&](const RunInfo& info, int m) {
    return store_.finished(store_.begin_run(info), {.problem = samples::problem(), .m = m});
  };
  EXPECT_TRUE(finished(samples::run_info(), 16));
  EXPECT_FALSE(finished(samples::run_info(), 8));
  EXPECT_FALSE(finished(samples::run_info(), 1));
  EXPECT_FALSE(finished(samples::run_info("source-2"), 16));
  auto info = samples::run_info();
  info.protocol_hash = "protocol-2";
  EXPECT_FALSE(finished(info, 16));
}

TEST_F(StoreTest, DevicesAreThoseSomethingIsKnownOf) {
  store_.put_device_kernel(samples::device("NVIDIA L4"), "pack_weight", samples::compilation());
  EXPECT_TRUE(store_.devices().empty());
  store_.put_trial(run_, samples::trial());
  auto info = samples::run_info();
  info.device = samples::device("NVIDIA A10");
  store_.put_winners(store_.begin_run(info), samples::problem(),
                     {samples::winner(1, Provenance::kPredicted)});
  EXPECT_EQ(store_.devices(),
            (std::vector{samples::device("NVIDIA A10"), samples::device("NVIDIA A40")}));
  EXPECT_TRUE(store_.winners(samples::device("NVIDIA L4")).empty());
}

TEST(Store, WhatWasProbedOfADeviceStaysUntilItIsProbedAgain) {
  Store store = Store::open(":memory:", Store::Mode::kReadWrite);
  store.put_compilation(samples::config(), samples::compilation());
  const auto run_with = [&](std::optional<bool> mma_denormals) {
    RunInfo info = samples::run_info();
    info.device.mma_denormals = mma_denormals;
    store.put_trial(store.begin_run(info), samples::trial());
  };
  EXPECT_EQ(store.mma_denormals(samples::device()), std::nullopt);
  run_with(true);
  EXPECT_EQ(store.mma_denormals(samples::device()), true);
  EXPECT_EQ(store.devices()[0].mma_denormals, true);
  run_with(std::nullopt);  // a prediction knows nothing
  EXPECT_EQ(store.mma_denormals(samples::device()), true);
  run_with(false);
  EXPECT_EQ(store.mma_denormals(samples::device()), false);
  EXPECT_EQ(store.mma_denormals(samples::device("NVIDIA A10")), std::nullopt);
}

TEST(Store, TheLatestCalibrationOfADeviceStays) {
  const Folder folder;
  const std::string path = folder.file("w4tune.db");
  const Calibration first = sample_calibration();
  Calibration second = first;
  second.driver = "581.0 (CUDA 13.1)";
  second.read_curve.pop_back();
  {
    auto store = Store::open(path, Store::Mode::kReadWrite);
    EXPECT_EQ(store.calibration(samples::device()), std::nullopt);
    store.put_calibration(samples::device(), first);
    EXPECT_EQ(store.calibration(samples::device()), first);
    store.put_calibration(samples::device(), second);
  }
  const auto store = Store::open(path, Store::Mode::kReadOnly);
  EXPECT_EQ(store.calibration(samples::device()), second);
  EXPECT_EQ(store.calibration(samples::device("NVIDIA A10")), std::nullopt);
  EXPECT_TRUE(store.devices().empty()) << "a probe alone serves nobody";
}

TEST(Store, ADamagedCalibrationIsNotUsed) {
  const Folder folder;
  const std::string path = folder.file("w4tune.db");
  Store::open(path, Store::Mode::kReadWrite)
      .put_calibration(samples::device(), sample_calibration());
  for (const char* damage : {"UPDATE probes SET read_gbps = 0",
                             "UPDATE probes SET read_curve_gbps = x'0000000000000040'"}) {
    Database(path, Database::Access::kReadWrite, kBusyTimeout).execute(damage);
    const auto store = Store::open(path, Store::Mode::kReadOnly);
    samples::expect_error(ErrorCode::kDatabase, "a probe's figures are wrong",
                          [&] { static_cast<void>(store.calibration(samples::device())); });
  }
}

TEST(Store, AnExportHasNoCalibration) {
  const Folder folder;
  auto store = Store::open(folder.file("w4tune.db"), Store::Mode::kReadWrite);
  store.put_compilation(samples::config(), samples::compilation());
  store.put_winners(store.begin_run(samples::run_info()), samples::problem(),
                    {samples::winner(16, Provenance::kMeasured)});
  store.put_calibration(samples::device(), sample_calibration());
  store.export_to(folder.file("exported.db"));
  const auto exported = Store::open(folder.file("exported.db"), Store::Mode::kReadOnly);
  EXPECT_EQ(exported.calibration(samples::device()), std::nullopt);
}

TEST(Store, ACompositeIsKeptBesideItsWinnerAndGoesWithIt) {
  const Folder folder;
  const std::string path = folder.file("composite.db");
  const std::string exported = folder.file("exported.db");
  auto store = Store::open(path, Store::Mode::kReadWrite);
  store.put_compilation(samples::config(), samples::compilation());
  const auto run = store.begin_run(samples::run_info());
  const Winner winner = samples::composite_winner(968);
  store.put_winners(run, samples::problem(), {winner});
  store.export_to(exported);
  for (const std::string& file : {path, exported}) {
    const auto found = Store::open(file, Store::Mode::kReadOnly).winners(samples::device());
    ASSERT_EQ(found.size(), 1U);
    EXPECT_EQ(found[0].composite, winner.composite) << file;
    EXPECT_EQ(found[0].candidate, winner.candidate) << "the winner is a kernel all the same";
  }
  store.put_winners(run, samples::problem(), {samples::winner(968, Provenance::kMeasured)});
  EXPECT_FALSE(store.winners(samples::device())[0].composite);
}

TEST(Store, TellsHowTheWinnersOfADeviceWereMeasured) {
  Store store = Store::open(":memory:", Store::Mode::kReadWrite);
  store.put_compilation(samples::config(), samples::compilation());
  EXPECT_TRUE(store.winner_protocols(samples::device()).empty());
  RunInfo info = samples::run_info();
  info.protocol = "once, by hand";
  const auto run = store.begin_run(info);
  EXPECT_TRUE(store.winner_protocols(samples::device()).empty()) << "no winner yet";
  const Winner winner = samples::winner(10, Provenance::kMeasured);
  store.put_winners(run, winner.problem, {winner});
  EXPECT_EQ(store.winner_protocols(samples::device()), std::vector<std::string>{"once, by hand"});
  EXPECT_TRUE(store.winner_protocols(samples::device("NVIDIA L4")).empty());
}

TEST(Store, TellsWhatMadeTheWinnersAndWhatWasMeasuredBesideThem) {
  Store store = Store::open(":memory:", Store::Mode::kReadWrite);
  store.put_compilation(samples::config(), samples::compilation());
  const Problem problem = samples::problem();
  RunInfo info = samples::run_info();
  const auto older = store.begin_run(info);
  info.driver = "590.1";
  info.protocol_hash = "protocol-2";
  const auto newer = store.begin_run(info);
  store.put_winners(older, problem, {samples::winner(10, Provenance::kMeasured)});
  store.put_winners(newer, problem, {samples::winner(50, Provenance::kMeasured)});
  store.put_winners(newer, problem, {samples::winner(64, Provenance::kPredicted)});
  const auto runs = store.winner_runs(samples::device());
  ASSERT_EQ(runs.size(), 2U);
  EXPECT_EQ(runs[0].driver, "580.1");
  EXPECT_EQ(runs[1].driver, "590.1");
  EXPECT_EQ(runs[1].seed, info.seed);
  for (const auto& [run, m] : {std::pair{older, 10}, {newer, 10}, {newer, 50}, {newer, 64}}) {
    store.put_baseline(run, {problem, m}, {"cublaslt_f16", "", {1.0 * m, 2.0, 3.0}, {}});
  }
  const auto baselines = store.winner_baselines(samples::device());
  ASSERT_EQ(baselines.size(), 2U) << "of the winner's own protocol, beside what was measured";
  EXPECT_EQ(baselines[0].first, (Workload{problem, 10}));
  EXPECT_EQ(baselines[1].second.time_us, (std::vector<double>{50.0, 2.0, 3.0}));
  EXPECT_TRUE(store.winner_runs(samples::device("NVIDIA L4")).empty());
  EXPECT_TRUE(store.winner_baselines(samples::device("NVIDIA L4")).empty());
}

TEST(Store, RunsKeepTheirFactsAndProbe) {
  const Folder folder;
  const std::string path = folder.file("w4tune.db");
  {
    auto store = Store::open(path, Store::Mode::kReadWrite);
    const auto before = store.begin_run(samples::run_info());
    store.update_probe(before, 600.0, 140.0);  // before the run has a row
    Trial trial = samples::trial();
    trial.compilation_key = "";
    store.put_trial(before, trial);
    const auto after = store.begin_run(samples::run_info("source-2"));
    store.put_trial(after, trial);
    store.update_probe(after, 610.0, 141.0);  // and after
    store.begin_run(samples::run_info("source-3"));
  }
  const Database database = open_for_reading(path);
  Statement select(database, "SELECT * FROM runs ORDER BY id");
  ASSERT_TRUE(select.step());
  EXPECT_EQ(select.text("driver"), "580.1");
  EXPECT_EQ(select.text("commit_id"), "abc");
  EXPECT_EQ(select.text("protocol"), "cold=3 reps=30");
  EXPECT_EQ(static_cast<std::uint64_t>(select.int64("seed")), ~0ull);
  EXPECT_EQ(select.real("copy_gbps"), 600.0);
  ASSERT_TRUE(select.step());
  EXPECT_EQ(select.text("source_hash"), "source-2");
  EXPECT_EQ(select.real("mma_tflops"), 141.0);
  EXPECT_FALSE(select.step());  // the third run stored nothing
}

TEST(Store, AKilledWriterLosesNothing) {
  const Folder folder;
  const std::string path = folder.file("w4tune.db");
  constexpr int kTrials = 20;
  const pid_t child = ::fork();
  if (child == 0) {
    auto store = Store::open(path, Store::Mode::kReadWrite);
    const auto run = store.begin_run(samples::run_info());
    store.put_compilation(samples::config(), samples::compilation());
    for (int i = 0; i < kTrials; ++i) store.put_trial(run, samples::trial(16 + i));
    ::raise(SIGKILL);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFSIGNALED(status));
  for (const auto mode : {Store::Mode::kReadOnly, Store::Mode::kReadWrite}) {
    auto store = Store::open(path, mode);
    const auto found =
        store.trials(store.begin_run(samples::run_info()), samples::trial().workload);
    EXPECT_EQ(found.size(), static_cast<std::size_t>(kTrials));
  }
}

// Two tuners on one new file, whose Ms interleave: nothing is lost, and the Ms are divided as if
// one had stored them all.
TEST(Store, TwoWritersAtOnceLoseNothing) {
  const Folder folder;
  const std::string path = folder.file("w4tune.db");
  constexpr int kRows = 60;
  std::vector<pid_t> children;
  for (int writer = 0; writer < 2; ++writer) {
    children.push_back(::fork());
    if (children.back() != 0) continue;
    auto store = Store::open(path, Store::Mode::kReadWrite);
    RunInfo info = samples::run_info();
    info.started_at = writer == 0 ? "first" : "second";
    const auto run = store.begin_run(info);
    for (int i = 0; i < kRows; ++i) {
      const int m = 2 * i + writer + 1;
      store.put_compilation(samples::config(), samples::compilation());  // both have the same
      store.put_trial(run, samples::trial(16 + i, m));
      store.put_winners(run, samples::problem(), {samples::winner(m, Provenance::kMeasured)});
      if (store.winners(samples::device()).empty()) ::_exit(3);
    }
    ::_exit(0);
  }
  for (const pid_t child : children) {
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_EQ(status, 0);
  }
  auto store = Store::open(path, Store::Mode::kReadWrite);
  const auto found = store.winners(samples::device());
  ASSERT_EQ(found.size(), 2U * kRows);
  const auto run = store.begin_run(samples::run_info());
  for (int i = 0; i < 2 * kRows; ++i) {
    const Winner& winner = found[static_cast<std::size_t>(i)];
    EXPECT_EQ(winner.m, i + 1);
    EXPECT_EQ(winner.m_lo, i + 1);
    EXPECT_EQ(winner.m_hi, i + 1 == 2 * kRows ? kUnboundedM : i + 1);
    EXPECT_EQ(store.trials(run, {samples::problem(), i + 1}).size(), 1U);
  }
  EXPECT_EQ(store.winner_runs(samples::device()).size(), 2U);
}

}  // namespace
}  // namespace w4tune

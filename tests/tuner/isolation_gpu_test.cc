// Kernels made faulty on purpose: one hangs, one writes where it may not, one is wrong, one does
// not compile. Each costs itself, once.
#include <gtest/gtest.h>

#include <filesystem>

#include "gpu/device.h"
#include "tests/tuner/faulty_sources.h"
#include "tests/tuner/program.h"
#include "tests/tuner/watched_run.h"
#include "tuner/compiler.h"
#include "tuner/measuring_process.h"
#include "tuner/tune.h"

namespace w4tune {
namespace {

namespace fs = std::filesystem;

const Workload kWorkload{{Op::kGemm, 4096, 1024, 128, Dtype::kF16}, 10};
constexpr int kEvaluations = 20;
constexpr int kFirst = 8;  // evaluations of the first run, which come to every fault

// The GPU as a run finds it.
DeviceInfo probed(const TuneOptions& options) {
  DeviceInfo device = options.device;
  Compiler compiler(arch_name(device.sm), "", 1, nullptr);
  BeginRequest begin;
  begin.max_workspace_bytes = options.max_workspace_bytes;
  begin.utility_image.data = compiler.utilities().cubin;
  MeasuringProcess measuring({.program = options.measuring_program, .begin = begin});
  const Probed found = measuring.probe(true);
  device.mma_denormals = found.mma_denormals;
  device.calibration = found.calibration;
  return device;
}

TEST(GpuIsolation, AFaultyKernelCostsItselfAndIsNeverRunAgain) {
  if (device_count() == 0) GTEST_SKIP() << no_device_reason();
  const fs::path folder = fs::temp_directory_path() / "w4tune_faulty";
  fs::remove_all(folder);
  const std::string db = (folder / "faulty.db").string();
  TuneOptions options;
  options.plan = {"test", {kWorkload}};
  options.device = query_device(0);
  options.evaluations = kEvaluations;
  options.families = {kFaultyFamily};
  options.baseline = false;
  options.threads = 4;
  options.patience_s = 3.0;
  options.measuring_program = program_under_test();
  const DeviceInfo device = probed(options);
  Store::open(db, Store::Mode::kReadWrite).put_calibration(device, *device.calibration);
  std::size_t count = 0;
  const Faults faults = faults_among(likeliest(kWorkload, device, options.families), count);
  ASSERT_LE(count, static_cast<std::size_t>(kFirst));
  options.device_dir = (folder / "device").string();
  write_faulty_sources(options.device_dir, faults, kWorkload.problem);

  Watcher watcher;
  const auto stored = [&] {
    Store store = Store::open(db, Store::Mode::kReadOnly);
    const std::string hash = device_sources_from(options.device_dir).hash;
    return store.trials(store.begin_run(describe_run(options, hash)), kWorkload);
  };
  const auto trial_of = [&](const Candidate& candidate) {
    for (const Trial& trial : stored()) {
      if (trial.candidate == candidate) return trial;
    }
    ADD_FAILURE() << to_string(candidate) << " was not tried";
    return Trial{};
  };

  // Ended before there is a winner, so that the second run goes through the candidates again.
  options.interrupted = [&] { return watcher.candidates >= kFirst; };
  {
    Store store = Store::open(db, Store::Mode::kReadWrite);
    EXPECT_TRUE(tune_measured(options, store, watcher).interrupted);
  }
  EXPECT_EQ(trial_of(faults.hangs).outcome, Outcome::kTimeout) << trial_of(faults.hangs).detail;
  EXPECT_EQ(trial_of(faults.illegal).outcome, Outcome::kLaunchError);
  EXPECT_EQ(trial_of(faults.wrong).outcome, Outcome::kWrongResult);
  EXPECT_EQ(trial_of(faults.no_compile).outcome, Outcome::kCompileError);
  EXPECT_NE(trial_of(faults.no_compile).detail.find("made not to compile"), std::string::npos);
  ASSERT_EQ(watcher.warnings.size(), 2U);
  EXPECT_NE(watcher.warnings[0].find(to_string(faults.hangs) + " hung"), std::string::npos);
  EXPECT_NE(watcher.warnings[1].find(to_string(faults.illegal) + " crashed"), std::string::npos);
  EXPECT_NE(watcher.warnings[1].find("CUDA_ERROR_ILLEGAL_ADDRESS"), std::string::npos)
      << watcher.warnings[1];

  watcher = {};
  options.interrupted = [] { return false; };
  Store store = Store::open(db, Store::Mode::kReadWrite);
  const TuneResult result = tune_measured(options, store, watcher);
  ASSERT_EQ(result.rows.size(), 1U);
  EXPECT_TRUE(result.rows[0].winner);
  EXPECT_EQ(result.rows[0].reused, kFirst);
  EXPECT_TRUE(watcher.warnings.empty()) << watcher.warnings[0];

  watcher = {};
  EXPECT_TRUE(tune_measured(options, store, watcher).rows.at(0).resumed);
  EXPECT_EQ(watcher.candidates, 0);
  fs::remove_all(folder);
}

}  // namespace
}  // namespace w4tune

// The probe on a real GPU: whether its figures can be. Skipped with the reason where there is none.
#include "tuner/probe.h"

#include <gtest/gtest.h>

#include <chrono>
#include <iostream>
#include <memory>
#include <optional>

#include "cli/probe_table.h"
#include "gpu/cublaslt.h"
#include "gpu/device.h"
#include "templates/cost.h"
#include "tests/cache/samples.h"
#include "tuner/compiler.h"
#include "tuner/tune.h"

namespace w4tune {
namespace {

class ProbeTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (device_count() == 0) GTEST_SKIP() << no_device_reason();
    device_ = query_device(0);
    if (device_.sm < 80)
      GTEST_SKIP() << device_.name << ": the kernels need compute capability 8.0";
    Compiler compiler(arch_name(device_.sm), "", 1, nullptr);
    gpu_ = std::make_unique<GpuSession>(0, 0, compiler.utilities().cubin);
  }

  // With time and driver, as from the cache.
  Calibration probe() {
    Calibration calibration = probe_device(device_, *gpu_, [](const std::string&) {});
    calibration.measured_at = timestamp_now();
    calibration.driver = describe_driver();
    return calibration;
  }

  DeviceInfo device_;
  std::unique_ptr<GpuSession> gpu_;
};

TEST_F(ProbeTest, FindsWhatCanBeWithinTenSeconds) {
  const auto begin = std::chrono::steady_clock::now();
  const Calibration found = probe();
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
  DeviceInfo calibrated = device_;
  calibrated.calibration = found;
  std::cout << probe_table(calibrated) << "in " << seconds.count() << " s\n";
  EXPECT_LT(seconds.count(), 10.0);
  ASSERT_TRUE(is_sound(found));

  EXPECT_GT(found.read_gbps, 0.5 * device_.dram_gbps);
  EXPECT_LT(found.read_gbps, 1.05 * device_.dram_gbps);
  EXPECT_GT(found.copy_gbps, 0.5 * device_.dram_gbps);
  EXPECT_LT(found.copy_gbps, 1.05 * device_.dram_gbps);
  double most = 0.0;
  for (const ReadPoint& point : found.read_curve) {
    EXPECT_GE(point.gbps, 0.95 * most) << point.bytes_per_sm << " bytes under way to each SM";
    most = std::max(most, point.gbps);
  }
  EXPECT_LT(found.read_curve.front().gbps, 0.6 * found.read_gbps) << "2 KB an SM are too few";
  EXPECT_GT(read_gbps_at(found, 32768.0), 0.7 * found.read_gbps);
  EXPECT_GT(loaded_latency_us(found, device_.sm_count), 0.2);
  EXPECT_LT(loaded_latency_us(found, device_.sm_count), 2.0);

  // In a graph an empty kernel took 0.50 to 0.93 us on an H200.
  EXPECT_GT(found.launch_us, 0.3);
  EXPECT_LT(found.launch_us, 20.0);
  if (device_.sm >= 90) {
    EXPECT_GT(found.dependent_launch_us, 0.1);
    EXPECT_LT(found.dependent_launch_us, 1.2 * found.launch_us);
  } else {
    EXPECT_EQ(found.dependent_launch_us, 0.0);
  }

  EXPECT_GT(found.mma_sync_tflops, 0.4 * device_.mma_tflops);
  EXPECT_LT(found.mma_sync_tflops, 1.15 * device_.mma_tflops);
  EXPECT_GT(found.mma_tflops, 0.4 * device_.mma_tflops);
  EXPECT_EQ(found.mma_source, CublasLt::available() ? "cublaslt_8192" : "data sheet");
  if (found.clock_mhz > 0.0) {  // it may be that it could not be read
    EXPECT_GT(found.clock_mhz, 0.4 * device_.clock_mhz);
    EXPECT_LT(found.clock_mhz, 1.2 * device_.clock_mhz);
  }

  // A round trip to L2 and an atomic; and at most 128 bytes a clock.
  EXPECT_GT(found.reduce_us, 0.3);
  EXPECT_LT(found.reduce_us, 10.0);
  EXPECT_GT(found.reduce_sm_gbps, 5.0);
  EXPECT_LT(found.reduce_sm_gbps, 0.128 * 1.1 * device_.clock_mhz);
}

TEST_F(ProbeTest, FindsTheSameTwice) {
  const Calibration first = probe();
  const Calibration second = probe();
  EXPECT_NEAR(second.copy_gbps, first.copy_gbps, 0.05 * first.copy_gbps);
  EXPECT_NEAR(second.read_gbps, first.read_gbps, 0.05 * first.read_gbps);
  EXPECT_NEAR(second.mma_sync_tflops, first.mma_sync_tflops, 0.1 * first.mma_sync_tflops);
  // What a launch costs is no constant of a process (docs/kernels.md).
  EXPECT_NEAR(second.launch_us, first.launch_us, 0.4 * first.launch_us);
  EXPECT_NEAR(second.reduce_us, first.reduce_us, 0.4 * first.reduce_us);
  EXPECT_NEAR(second.reduce_sm_gbps, first.reduce_sm_gbps, 0.25 * first.reduce_sm_gbps);
}

TEST_F(ProbeTest, IsUsedUntilTheDriverOrTheMethodIsAnother) {
  const samples::Folder folder;
  auto store = Store::open(folder.file("w4tune.db"), Store::Mode::kReadWrite);
  EXPECT_FALSE(usable_calibration(store, device_));
  const Calibration found = probe();
  EXPECT_EQ(found.driver, describe_driver());
  store.put_calibration(device_, found);
  EXPECT_EQ(usable_calibration(store, device_), found);
  Calibration older = found;
  older.driver = "1.0 (CUDA 1.0)";
  store.put_calibration(device_, older);
  EXPECT_FALSE(usable_calibration(store, device_));
  older = found;
  older.method = Calibration::kMethod - 1;
  store.put_calibration(device_, older);
  EXPECT_FALSE(usable_calibration(store, device_));
}

}  // namespace
}  // namespace w4tune

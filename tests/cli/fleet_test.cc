// A fleet of processes that predict, on one cache file: hand-out, failures and interrupts need no
// GPU.
#include "cli/fleet.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <string>
#include <thread>
#include <vector>

#include "core/device_info.h"
#include "gpu/device.h"
#include "tests/cache/samples.h"

namespace w4tune {
namespace {

using samples::Folder;

class Watcher final : public TuneObserver {
 public:
  void on_phase(const std::string& /*what*/) override {}
  void on_ceilings(const Ceilings& /*ceilings*/) override { ++ceilings; }
  void on_workload(std::size_t /*index*/, std::size_t /*total*/, const Workload& /*workload*/,
                   double /*floor_us*/) override {}
  void on_candidate(const Trial& /*trial*/, int /*done*/, int /*planned*/,
                    double /*best_us*/) override {}
  void on_result(const WorkloadResult& row, const TuneResult& /*so_far*/) override {
    by.push_back(row.by);
  }
  void on_warning(const std::string& message) override { warnings.push_back(message); }

  int ceilings = 0;
  std::vector<std::string> by;
  std::vector<std::string> warnings;
};

class FleetTest : public testing::Test {
 protected:
  FleetTest() : db_(folder_.file("fleet.db")), store_(Store::open(db_, Store::Mode::kReadWrite)) {
    PlanOverrides overrides;
    overrides.m = {1, 10, 16, 50};
    overrides.shapes = {{4096, 1024}};
    options_.plan = model_plan("pi05", overrides);
    options_.device = find_known_device("a40")->info;
  }

  void SetUp() override {
    if (device_count() > 0 && query_device(0).name == "NVIDIA A40") {
      GTEST_SKIP() << "this is an A40";
    }
  }

  [[nodiscard]] FleetMember member(int number, const std::string& more = "") const {
    return {
        fmt::format("gpu{}", number),
        {"/bin/sh", "-c",
         fmt::format("export ASAN_OPTIONS=detect_leaks=0; exec {} tune --gpu a40 --m 1,10,16,50 "
                     "--shape 4096,1024 --family mma_pipe --threads 1 --db {} --member {} {}",
                     W4TUNE_CLI, db_, number, more)}};
  }

  static FleetMember shell(int number, const std::string& script) {
    return {fmt::format("gpu{}", number), {"/bin/sh", "-c", script}};
  }

  TuneResult lead(const std::vector<FleetMember>& members) {
    return lead_fleet(options_, store_, members, watcher_);
  }

  Folder folder_;
  std::string db_;
  Store store_;
  TuneOptions options_;
  Watcher watcher_;
};

TEST_F(FleetTest, TwoProcessesTuneThePlanTogether) {
  const TuneResult result = lead({member(0), member(1)});
  ASSERT_EQ(result.rows.size(), 4U);
  for (std::size_t i = 0; i < result.rows.size(); ++i) {
    EXPECT_EQ(result.rows[i].workload, options_.plan.workloads[i]) << "in the order of the plan";
    EXPECT_TRUE(result.rows[i].winner);
    EXPECT_GT(result.rows[i].evaluated, 0);
  }
  EXPECT_FALSE(result.interrupted);
  EXPECT_EQ(result.untuned(), 0);
  EXPECT_FALSE(result.assumed.empty());
  EXPECT_GT(result.ceilings.copy_gbps, 0.0);
  EXPECT_EQ(watcher_.ceilings, 1);
  for (const char* name : {"gpu0", "gpu1"}) {
    EXPECT_GT(std::count(watcher_.by.begin(), watcher_.by.end(), name), 0) << name;
  }
  const std::vector<Winner> stored = store_.winners(options_.device);
  ASSERT_EQ(stored.size(), 4U);
  EXPECT_EQ(result.rows[3].winner->m_lo, 17);
  EXPECT_EQ(result.rows[3].winner->m_hi, kUnboundedM);
}

TEST_F(FleetTest, AProcessThatDiesFailsTheRunAndTheOthersGoOn) {
  try {
    // It takes a stretch of the plan and dies of it.
    lead({shell(0, "echo '{\"ready\":true}'; read order; kill -9 $$"), member(1)});
    ADD_FAILURE();
  } catch (const Error& error) {
    const std::string message = error.what();
    EXPECT_EQ(error.code(), ErrorCode::kDevice);
    EXPECT_NE(message.find("gpu0: its process ended with signal 9"), std::string::npos) << message;
    EXPECT_EQ(message.find('\n'), std::string::npos);
  }
  EXPECT_GT(store_.winners(options_.device).size(), 0U) << "what the other one found";
}

TEST_F(FleetTest, AnErrorOfAMemberIsTheRunsError) {
  samples::expect_error(ErrorCode::kNotFound, "gpu1: device source",
                        [&] { lead({member(1, "--device-dir " + folder_.path().string())}); });
}

TEST_F(FleetTest, AProgramThatIsNotThereIsOneLine) {
  samples::expect_error(ErrorCode::kEnvironment, "cannot start a process for gpu0", [&] {
    lead({{"gpu0", {"/no/such/program"}}});
  });
}

TEST_F(FleetTest, AnInterruptReachesTheMembersAndKeepsWhatIsThere) {
  std::atomic<bool> interrupted = false;
  options_.interrupted = [&] { return interrupted.load(); };
  // One that would wait for ever.
  const FleetMember stuck = shell(
      0, "trap 'exit 0' INT; echo '{\"ready\":true}'; read order; while :; do sleep 0.1; done");
  std::thread later([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(1500));
    interrupted = true;
  });
  const TuneResult result = lead({stuck, member(1)});
  later.join();
  EXPECT_TRUE(result.interrupted || result.rows.size() < options_.plan.workloads.size());
}

TEST_F(FleetTest, ASpentBudgetLeavesRowsThatSaySo) {
  options_.budget_s = 1e-6;
  const TuneResult result = lead({member(0), member(1)});
  EXPECT_EQ(result.rows.size(), 4U);
  EXPECT_GT(result.untuned(), 0);
}

}  // namespace
}  // namespace w4tune

// A whole run of the tuner against a measuring process that goes wrong: kernels are compiled as
// ever, and a stand-in measures them.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <random>
#include <thread>

#include "core/device_info.h"
#include "tests/core/sample_calibration.h"
#include "tests/tuner/stand_in.h"
#include "tests/tuner/watched_run.h"
#include "tuner/tune.h"
#include "w4tune/error.h"

namespace w4tune {
namespace {

namespace fs = std::filesystem;

constexpr int kEvaluations = 8;
const Workload kWorkload{{Op::kGemm, 4096, 1024, 128, Dtype::kF16}, 10};

class Isolation : public testing::Test {
 protected:
  Isolation()
      : script_(test_name()), db_(fs::path(W4TUNE_STAND_IN).parent_path() / (test_name() + ".db")) {
    for (const char* suffix : {"", "-wal", "-shm"}) fs::remove(db_.string() + suffix);
    script_.set({});
    options_.plan = {"test", {kWorkload}};
    options_.device = find_known_device("a40")->info;
    options_.evaluations = kEvaluations;
    options_.families = {"mma_reg"};
    options_.baseline = false;
    options_.threads = 2;
    options_.measuring_program = W4TUNE_STAND_IN;
    // As the stand-in says.
    options_.device.mma_denormals = true;
    options_.device.calibration = sample_calibration();
  }

  static std::string test_name() {
    return std::string("isolation_") +
           testing::UnitTest::GetInstance()->current_test_info()->name();
  }

  TuneResult tune() {
    Store store = Store::open(db_.string(), Store::Mode::kReadWrite);
    watcher_ = {};
    return tune_measured(options_, store, watcher_);
  }

  [[nodiscard]] std::vector<Trial> stored(const Workload& workload = kWorkload) const {
    Store store = Store::open(db_.string(), Store::Mode::kReadOnly);
    return store.trials(store.begin_run(describe_run(options_, device_sources_from("").hash)),
                        workload);
  }
  // Trials of the whole plan; none before there is a file.
  [[nodiscard]] std::size_t stored_everywhere() const {
    std::size_t count = 0;
    try {
      for (const Workload& workload : options_.plan.workloads) count += stored(workload).size();
    } catch (const Error&) {
      return 0;
    }
    return count;
  }
  [[nodiscard]] Outcome outcome_of(const Candidate& candidate) const {
    for (const Trial& trial : stored()) {
      if (trial.candidate == candidate) return trial.outcome;
    }
    return Outcome::kInvalidConfig;
  }

  // How often each candidate was measured since the last call.
  std::map<std::string, int> measured() const {
    std::map<std::string, int> counts;
    for (const std::string& line : script_.take_log()) {
      if (line.rfind("measure ", 0) == 0) ++counts[line.substr(8)];
    }
    return counts;
  }

  void goes_on_and_never_runs_it_again() {
    const std::vector<Candidate> first = likeliest(kWorkload, options_.device, options_.families);
    script_.set({{to_string(first[0]), "segv"},
                 {to_string(first[1]), "sticky"},
                 {to_string(first[2]), "wrong"},
                 {to_string(first[3]), "refused"}});
    const TuneOptions whole = options_;
    options_.interrupted = [&] { return watcher_.candidates >= 6; };
    EXPECT_TRUE(tune().interrupted);
    EXPECT_EQ(measured().size(), 6U);
    EXPECT_EQ(outcome_of(first[0]), Outcome::kLaunchError);
    EXPECT_EQ(outcome_of(first[1]), Outcome::kLaunchError);
    EXPECT_EQ(outcome_of(first[2]), Outcome::kWrongResult);
    EXPECT_EQ(outcome_of(first[3]), Outcome::kLaunchError);
    EXPECT_EQ(outcome_of(first[4]), Outcome::kOk);
    ASSERT_EQ(watcher_.warnings.size(), 2U);
    EXPECT_EQ(
        watcher_.warnings[0],
        to_string(kWorkload) + ": " + to_string(first[0]) +
            " crashed (the measuring process was ended by signal 11 (Segmentation fault)). It "
            "is recorded and will not be run again.");

    script_.set({});
    options_ = whole;
    const TuneResult result = tune();
    ASSERT_EQ(result.rows.size(), 1U);
    EXPECT_TRUE(result.rows[0].winner);
    EXPECT_EQ(result.rows[0].reused, 6);
    EXPECT_TRUE(watcher_.warnings.empty());
    const std::map<std::string, int> counts = measured();
    EXPECT_EQ(counts.size(), static_cast<std::size_t>(result.rows[0].evaluated));
    for (std::size_t i = 0; i < 4; ++i) EXPECT_EQ(counts.count(to_string(first[i])), 0U);
    for (const auto& [name, count] : counts) EXPECT_EQ(count, 1) << name;
  }

  void a_crash_in_the_final_costs_a_finalist() {
    ASSERT_TRUE(tune().rows.at(0).winner);
    const Candidate winner = tune().rows.at(0).winner->candidate;
    ++options_.protocol.seed;
    script_.take_log();
    script_.set({{"contest " + to_string(winner), "kill"}});
    const TuneResult result = tune();
    ASSERT_TRUE(result.rows.at(0).winner);
    EXPECT_NE(result.rows[0].winner->candidate, winner);
    EXPECT_EQ(outcome_of(winner), Outcome::kLaunchError);
    ASSERT_EQ(watcher_.warnings.size(), 1U);
    EXPECT_NE(watcher_.warnings[0].find(to_string(winner) + " crashed"), std::string::npos);
    const std::vector<std::string> log = script_.take_log();
    EXPECT_EQ(std::count(log.begin(), log.end(), "contest"), 2);
  }

  // Where all are refused at M = 9, nothing serves 10, and the run ends as ever.
  void a_crash_within_the_interval_costs_a_finalist() {
    script_.set({{"check", "refused"}});
    const TuneResult result = tune();
    ASSERT_EQ(result.rows.size(), 1U);
    EXPECT_FALSE(result.rows[0].winner);
    EXPECT_EQ(result.rows[0].evaluated, kEvaluations);
    EXPECT_EQ(result.rows[0].failed, kEvaluations);
    EXPECT_EQ(watcher_.warnings.size(), static_cast<std::size_t>(kEvaluations));
  }

  // A process that tunes, to be killed; returns 0 when it comes to the end.
  pid_t start() {
    const pid_t pid = ::fork();
    if (pid != 0) return pid;
    std::_Exit(tune().untuned());
  }

  StandInScript script_;
  fs::path db_;
  TuneOptions options_;
  Watcher watcher_;
};

// One test, so that kernels are compiled once: what is measured anew has another seed.
TEST_F(Isolation, ACrashCostsACandidateAndNotTheRun) {
  goes_on_and_never_runs_it_again();
  ++options_.protocol.seed;
  a_crash_in_the_final_costs_a_finalist();
  ++options_.protocol.seed;
  a_crash_within_the_interval_costs_a_finalist();
}

TEST_F(Isolation, KilledAtAnyMomentNothingIsLostOrMeasuredTwice) {
  options_.plan.workloads.push_back({kWorkload.problem, 12});
  script_.set({}, 200);
  std::minstd_rand random(7);
  int kills = 0;
  std::size_t known = 0;
  while (kills < 20) {
    const pid_t tuner = start();
    std::this_thread::sleep_for(std::chrono::milliseconds(100 + random() % 1200));
    ::kill(tuner, SIGKILL);
    int status = 0;
    ASSERT_EQ(::waitpid(tuner, &status, 0), tuner);
    if (!WIFSIGNALED(status)) break;  // it was done
    ++kills;
    const std::size_t now = stored_everywhere();
    EXPECT_GE(now, known);
    known = now;
  }
  EXPECT_GT(kills, 5);
  int status = 0;
  ASSERT_GT(::waitpid(start(), &status, 0), 0);
  EXPECT_EQ(status, 0);
  std::size_t measured_in_all = 0;
  for (const std::string& line : script_.take_log()) {
    if (line.rfind("measure ", 0) == 0) ++measured_in_all;
  }
  EXPECT_LE(measured_in_all, stored_everywhere() + static_cast<std::size_t>(kills))
      << "more than what was in flight was measured again";
}

TEST_F(Isolation, TwoTunersShareADatabase) {
  script_.set({}, 20);
  const std::array<pid_t, 2> tuners = {start(), start()};
  for (const pid_t tuner : tuners) {
    int status = 0;
    ASSERT_EQ(::waitpid(tuner, &status, 0), tuner);
    EXPECT_EQ(status, 0);
  }
  EXPECT_EQ(stored_everywhere(), static_cast<std::size_t>(kEvaluations));
  script_.take_log();
  EXPECT_TRUE(tune().rows.at(0).resumed);
  EXPECT_TRUE(measured().empty());
}

}  // namespace
}  // namespace w4tune

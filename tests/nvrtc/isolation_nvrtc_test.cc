// A whole run of the tuner against a measuring process that goes wrong: kernels are compiled as
// ever, and a stand-in measures them. One test, so that they are compiled once: what is measured
// anew has another seed.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>

#include "core/device_info.h"
#include "tests/tuner/stand_in.h"
#include "tuner/ranking.h"
#include "tuner/tune.h"

namespace w4tune {
namespace {

namespace fs = std::filesystem;

constexpr int kEvaluations = 8;
const Workload kWorkload{{Op::kGemm, 4096, 1024, 128, Dtype::kF16}, 10};

class Watcher final : public TuneObserver {
 public:
  void on_phase(const std::string& /*what*/) override {}
  void on_ceilings(const Ceilings& /*ceilings*/) override {}
  void on_workload(std::size_t /*index*/, std::size_t /*total*/, const Workload& /*workload*/,
                   double /*floor_us*/) override {}
  void on_candidate(const Trial& /*trial*/, int /*done*/, int /*planned*/,
                    double /*best_us*/) override {
    ++candidates;
  }
  void on_result(const WorkloadResult& /*result*/, const TuneResult& /*so_far*/) override {}
  void on_warning(const std::string& message) override { warnings.push_back(message); }

  int candidates = 0;
  std::vector<std::string> warnings;
};

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
    options_.device.mma_denormals = true;  // as the stand-in says
  }

  static std::string test_name() {
    return std::string("isolation_") +
           testing::UnitTest::GetInstance()->current_test_info()->name();
  }

  // The candidates that the search begins with, likeliest first.
  [[nodiscard]] std::vector<Candidate> likeliest(const Workload& workload) const {
    const std::vector<Rankings> rankings =
        rank_all({workload}, options_.device, options_.max_workspace_bytes, 1, options_.families);
    std::vector<Candidate> candidates;
    for (const Choice& choice : by_prediction(rankings[0])) {
      candidates.push_back(candidate_at(rankings[0], choice));
    }
    return candidates;
  }

  TuneResult tune() {
    Store store = Store::open(db_.string(), Store::Mode::kReadWrite);
    watcher_ = {};
    return tune_measured(options_, store, watcher_);
  }

  [[nodiscard]] std::vector<Trial> stored() const {
    Store store = Store::open(db_.string(), Store::Mode::kReadOnly);
    return store.trials(store.begin_run(describe_run(options_, device_sources_from("").hash)),
                        kWorkload);
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
    const std::vector<Candidate> first = likeliest(kWorkload);
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

  // Where all are refused at M = 11, nothing serves 12, and the run ends as ever.
  void a_crash_within_the_interval_costs_a_finalist() {
    const Workload larger{kWorkload.problem, 12};
    options_.plan.workloads.push_back(larger);
    std::map<std::string, std::string> checks;
    for (const Candidate& candidate : likeliest(larger)) {
      checks["check " + to_string(candidate)] = "refused";
    }
    script_.set(checks);
    const TuneResult result = tune();
    ASSERT_EQ(result.rows.size(), 2U);
    EXPECT_TRUE(result.rows[0].winner);
    EXPECT_FALSE(result.rows[1].winner);
    EXPECT_EQ(result.rows[1].failed, result.rows[1].evaluated);
    EXPECT_EQ(watcher_.warnings.size(), static_cast<std::size_t>(result.rows[1].failed));
  }

  StandInScript script_;
  fs::path db_;
  TuneOptions options_;
  Watcher watcher_;
};

TEST_F(Isolation, ACrashCostsACandidateAndNotTheRun) {
  goes_on_and_never_runs_it_again();
  ++options_.protocol.seed;
  a_crash_in_the_final_costs_a_finalist();
  ++options_.protocol.seed;
  a_crash_within_the_interval_costs_a_finalist();
}

}  // namespace
}  // namespace w4tune

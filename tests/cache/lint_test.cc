#include "cache/lint.h"

#include <gtest/gtest.h>

#include <optional>
#include <string>
#include <vector>

#include "tests/cache/samples.h"

namespace w4tune {
namespace {

using samples::Folder;

class LintTest : public testing::Test {
 protected:
  LintTest() : path_(folder_.file("lint.db")) {
    store_.emplace(Store::open(path_, Store::Mode::kReadWrite));
    store_->put_compilation(samples::config(), samples::compilation());
    store_->put_device_kernel(samples::device(), "utility", samples::compilation("key-2", "u"));
    run_ = store_->begin_run(samples::run_info());
  }

  // A winner of `time_us`, whose samples lie close together.
  void put(int m, double time_us, Provenance provenance = Provenance::kMeasured,
           std::int64_t run = 0) {
    Winner winner = samples::winner(m, provenance);
    winner.time_us_median = time_us;
    winner.time_us.clear();
    if (provenance == Provenance::kMeasured) {
      for (int i = -12; i <= 12; ++i) winner.time_us.push_back(time_us * (1.0 + 0.0001 * i));
    }
    store_->put_winners(run == 0 ? run_ : run, winner.problem, {winner});
  }

  void put_trial(int m, std::vector<double> time_us, int row_tile = 64) {
    Trial trial = samples::trial(row_tile, m);
    trial.time_us = std::move(time_us);
    store_->put_trial(run_, trial);
  }

  void change(const std::string& script) const {
    Database(path_, Database::Access::kReadWrite, kBusyTimeout).execute(script);
  }

  [[nodiscard]] std::vector<LintFinding> findings() {
    reference_.source_hash = "source-1";
    Store copy = Store::open_copy(path_);
    return lint(copy, reference_);
  }

  // Expects one finding, of this kind, with these words in its place and text.
  void expect_one(LintKind kind, const std::string& where, const std::string& what) {
    const auto found = findings();
    ASSERT_EQ(found.size(), 1U) << (found.empty() ? "nothing" : found.back().what);
    EXPECT_EQ(found[0].kind, kind) << found[0].what;
    EXPECT_NE(found[0].where.find("NVIDIA A40"), std::string::npos) << found[0].where;
    EXPECT_NE(found[0].where.find(where), std::string::npos) << found[0].where;
    EXPECT_NE(found[0].what.find(what), std::string::npos) << found[0].what;
    EXPECT_FALSE(found[0].remedy.empty());
    EXPECT_EQ(found[0].what.find('\n'), std::string::npos);
  }

  void expect_clean() { EXPECT_TRUE(findings().empty()) << findings()[0].what; }

  Folder folder_;
  std::string path_;
  std::optional<Store> store_;
  std::int64_t run_ = 0;
  LintReference reference_;
};

TEST_F(LintTest, AGoodFileIsClean) {
  put(1, 5.0);
  put(16, 6.0);
  put(64, 7.0, Provenance::kPredicted);
  put_trial(1, {5.1, 5.1, 5.1});
  put_trial(16, {6.1, 6.1, 6.1});
  expect_clean();
}

TEST_F(LintTest, AnEmptyFileIsClean) { expect_clean(); }

TEST_F(LintTest, PredictedRowsAreHiddenByMeasuredOnes) {
  put(16, 6.0, Provenance::kPredicted);
  expect_clean();
  put(16, 6.0);
  expect_one(LintKind::kHidden, "gemm_n16384_k2048_g128_f16 m=16", "hidden by a measured one");
}

TEST_F(LintTest, RowsThatServeNothing) {
  put(1, 5.0);
  put(16, 6.0);
  change("UPDATE winners SET m_lo = NULL, m_hi = NULL WHERE m = 1");
  const auto found = findings();
  ASSERT_EQ(found.size(), 2U);
  EXPECT_EQ(found[0].kind, LintKind::kNeverChosen);
  EXPECT_EQ(found[1].kind, LintKind::kGap);
  EXPECT_NE(found[1].what.find("no row serves M 1..1"), std::string::npos) << found[1].what;
}

TEST_F(LintTest, RowsThatAnotherServesAsWell) {
  put(1, 5.0);
  put(16, 6.0);
  change("UPDATE winners SET m_hi = 1073741824 WHERE m = 1");
  expect_one(LintKind::kNeverChosen, "m=16", "the measured row serves no M");
}

TEST_F(LintTest, RangesWithoutARow) {
  put(1, 5.0);
  put(16, 6.0);
  put(64, 7.0);
  change("UPDATE winners SET m_lo = 5, m_hi = 16 WHERE m = 16");
  change("UPDATE winners SET m_hi = 64 WHERE m = 64");
  expect_one(LintKind::kGap, "gemm_n16384_k2048_g128_f16", "no row serves M 2..4, 65..");
}

TEST_F(LintTest, ATrialThatIsFasterBeyondDoubt) {
  put(16, 6.0);
  put_trial(16, {5.0, 5.01, 5.02, 5.0, 5.01});
  put_trial(16, {5.5, 5.51, 5.52, 5.5, 5.51}, 32);
  expect_one(LintKind::kFasterTrial, "m=16", "a trial took 5.01 us and the winner takes 6.00");
}

TEST_F(LintTest, TrialsThatProveNothing) {
  put(16, 6.0);
  put_trial(16, {5.95, 5.96, 5.97, 5.95, 5.96});  // a tie
  put_trial(16, {5.0, 5.0, 5.0, 7.0, 7.0}, 32);   // scattered
  put_trial(16, {5.0, 5.0, 5.0, 5.0, 5.0}, 128);  // the winner itself, in the search
  put_trial(1, {1.0, 1.0, 1.0}, 256);             // of another M
  Trial wrong = samples::trial(16, 16);
  wrong.outcome = Outcome::kWrongResult;
  wrong.candidate.schedule = {.split_k = 4, .raster = 2};
  wrong.time_us = {1.0, 1.0, 1.0};
  store_->put_trial(run_, wrong);
  Trial elsewhere = samples::trial(48, 16);
  elsewhere.time_us = {1.0, 1.0, 1.0};
  store_->put_trial(store_->begin_run(samples::run_info("source-2")), elsewhere);
  expect_clean();
}

TEST_F(LintTest, ALargerMThatIsFaster) {
  put(1, 5.0);
  put(16, 6.0);
  put(32, 5.5);
  put(64, 7.0);
  expect_one(LintKind::kFasterRow, "m=16",
             "serves M 2..16 in 6.00 us, and the row tuned at M = 32 takes 5.50 (8.3 % less)");
}

TEST_F(LintTest, RowsThatCannotBeComparedAreNot) {
  put(16, 6.0);
  put(64, 5.0, Provenance::kPredicted);
  RunInfo other = samples::run_info();
  other.protocol_hash = "protocol-2";
  put(128, 5.0, Provenance::kMeasured, store_->begin_run(other));
  put(256, 5.95);  // a tie
  expect_clean();
}

TEST_F(LintTest, StaleSourcesAreOneLineForAProblem) {
  const std::int64_t old = store_->begin_run(samples::run_info("source-0"));
  put(1, 5.0, Provenance::kMeasured, old);
  put(16, 6.0, Provenance::kMeasured, old);
  put(32, 7.0);
  expect_one(LintKind::kOtherSource, "m=1,16", "other device sources than this w4tune's");
}

TEST_F(LintTest, RowsOfAnotherDriver) {
  RunInfo info = samples::run_info();
  info.driver = "590.2";
  info.started_at = "2026-01-01";
  put(1, 5.0);
  expect_clean();
  reference_.present = {samples::device()};
  reference_.driver = "580.1";
  expect_clean();
  reference_.driver = "600.3";
  expect_one(LintKind::kOtherDriver, "m=1", "driver 580.1, not with 600.3");
  // Where the GPU is not here the newest row counts; a prediction has no driver.
  reference_.present = {samples::device("NVIDIA L4")};
  put(16, 6.0, Provenance::kMeasured, store_->begin_run(info));
  info.driver = "none";
  put(32, 7.0, Provenance::kPredicted, store_->begin_run(info));
  expect_one(LintKind::kOtherDriver, "m=1", "driver 580.1, not with 590.2");
}

TEST_F(LintTest, CubinsThatAreMissingOrDamaged) {
  put(1, 5.0);
  change("PRAGMA foreign_keys = OFF; DELETE FROM cubins WHERE image != 'u'");
  expect_one(LintKind::kNoCubin, "m=1", "the measured row has no cubin");
  change("DELETE FROM compilations WHERE key = 'key-1'");
  expect_one(LintKind::kNoCubin, "m=1", "the measured row has no cubin");
}

TEST_F(LintTest, ACubinThatChanged) {
  put(1, 5.0);
  change("UPDATE cubins SET image = x'00' WHERE image = CAST('cubin of key-1' AS BLOB)");
  expect_one(LintKind::kNoCubin, "m=1", "differs from its SHA-256");
}

TEST_F(LintTest, KernelsThatPackMayBeMissing) {
  put(1, 5.0);
  change("DELETE FROM device_kernels");
  expect_one(LintKind::kNoUtilities, "NVIDIA A40", "pack weights");
}

TEST_F(LintTest, ChangesNothing) {
  put(1, 5.0);
  put(16, 4.0);
  store_.reset();
  const std::string before = samples::read_file(path_);
  EXPECT_FALSE(findings().empty());
  EXPECT_EQ(samples::read_file(path_), before);
}

}  // namespace
}  // namespace w4tune

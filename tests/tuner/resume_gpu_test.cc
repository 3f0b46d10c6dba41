// A run killed with SIGKILL goes on where it was: nothing is measured twice, nothing is missing.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>

#include "cache/store.h"
#include "gpu/device.h"
#include "templates/family.h"
#include "tuner/tune.h"
#include "w4tune/error.h"

namespace w4tune {
namespace {

namespace fs = std::filesystem;

// The program under test; the variable serves where the tests run on another machine.
std::string program() {
  const char* path = std::getenv("W4TUNE_CLI");
  return path != nullptr ? path : W4TUNE_CLI;
}

const std::vector<int> kTokens = {1, 10, 16, 50};
const Problem kProblem{Op::kGemm, 4096, 1024, 128, Dtype::kF16};

pid_t start(const std::string& db, const std::string& report) {
  const pid_t child = ::fork();
  if (child == 0) {
    const std::string path = program();
    ::execl(path.c_str(), path.c_str(), "--quiet", "--shape", "4096,1024", "--m", "1,10,16,50",
            "--evaluations", "16", "--db", db.c_str(), "--report", report.c_str(),
            static_cast<char*>(nullptr));
    std::_Exit(127);
  }
  return child;
}

int exit_code_of(pid_t child) {
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

std::size_t stored_trials(const std::string& db) {
  TuneOptions options;
  options.device = query_device(0);
  Store store = Store::open(db, Store::Mode::kReadOnly);
  const std::int64_t run = store.begin_run(describe_run(options, device_sources_from("").hash));
  std::size_t count = 0;
  for (const int m : kTokens) count += store.trials(run, {kProblem, m}).size();
  return count;
}

TEST(Resume, AfterSigkillNothingIsMeasuredTwice) {
  if (device_count() == 0) GTEST_SKIP() << no_device_reason();
  const std::string db = (fs::temp_directory_path() / "w4tune_resume.db").string();
  const std::string report = (fs::temp_directory_path() / "w4tune_resume.json").string();
  for (const char* suffix : {"", "-wal", "-shm"}) fs::remove(db + suffix);
  fs::remove(report);

  const pid_t first = start(db, report);
  std::size_t before = 0;
  for (int i = 0; i < 600 && before < 20; ++i) {  // amid the second workload
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    if (fs::exists(db)) {
      try {
        before = stored_trials(db);
      } catch (const Error&) {
        before = 0;  // the schema is being written
      }
    }
  }
  ::kill(first, SIGKILL);
  exit_code_of(first);
  before = stored_trials(db);
  ASSERT_GE(before, 20U);

  ASSERT_EQ(exit_code_of(start(db, report)), 0);
  const auto document = nlohmann::json::parse(std::ifstream(report));
  ASSERT_EQ(document.at("rows").size(), kTokens.size());
  std::size_t evaluated = 0;
  for (const auto& row : document.at("rows")) {
    EXPECT_EQ(row.at("provenance"), "measured");
    evaluated += row.at("evaluated").get<std::size_t>();
  }
  EXPECT_EQ(before + evaluated, stored_trials(db)) << "a trial was measured again";
  EXPECT_EQ(Store::open(db, Store::Mode::kReadOnly).winners(query_device(0)).size(),
            kTokens.size());

  // Once more: everything is known.
  ASSERT_EQ(exit_code_of(start(db, report)), 0);
  for (const auto& row : nlohmann::json::parse(std::ifstream(report)).at("rows")) {
    EXPECT_EQ(row.at("evaluated"), 0);
    EXPECT_EQ(row.at("reused"), 0);
    EXPECT_EQ(row.at("provenance"), "measured");
  }
}

}  // namespace
}  // namespace w4tune

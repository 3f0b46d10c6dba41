// A run killed with SIGKILL, whenever, goes on where it was and leaves no process behind; two runs
// share a database.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <random>
#include <set>
#include <sstream>
#include <thread>

#include "cache/store.h"
#include "gpu/device.h"
#include "templates/family.h"
#include "tests/tuner/program.h"
#include "tuner/tune.h"
#include "w4tune/error.h"

namespace w4tune {
namespace {

namespace fs = std::filesystem;
using namespace std::chrono_literals;

const std::vector<int> kTokens = {10, 16};
const Problem kProblem{Op::kGemm, 4096, 1024, 128, Dtype::kF16};
constexpr std::size_t kEvaluations = 16;

// The program with a database of its own.
class Resume : public testing::Test {
 protected:
  void SetUp() override {
    if (device_count() == 0) GTEST_SKIP() << no_device_reason();
    fs::remove_all(folder_);
    fs::create_directories(folder_);
  }
  ~Resume() override { fs::remove_all(folder_); }

  [[nodiscard]] std::string db() const { return (folder_ / "resume.db").string(); }

  [[nodiscard]] pid_t start(const std::string& report) const {
    const std::string path = program_under_test();
    const std::string file = db();
    const std::string report_file = (folder_ / report).string();
    const std::string evaluations = std::to_string(kEvaluations);
    const pid_t child = ::fork();
    if (child == 0) {
      ::execl(path.c_str(), path.c_str(), "--quiet", "--shape", "4096,1024", "--m", "10,16",
              "--evaluations", evaluations.c_str(), "--no-baseline", "--db", file.c_str(),
              "--report", report_file.c_str(), static_cast<char*>(nullptr));
      std::_Exit(127);
    }
    return child;
  }

  // Candidates that the rows of a report measured, and how many of the rows have winners.
  struct Rows {
    std::size_t evaluated = 0;
    std::size_t reused = 0;
    std::size_t winners = 0;
  };
  [[nodiscard]] Rows rows_of(const std::string& report) const {
    Rows rows;
    const auto document = nlohmann::json::parse(std::ifstream(folder_ / report));
    for (const auto& row : document.at("rows")) {
      rows.evaluated += row.at("evaluated").get<std::size_t>();
      rows.reused += row.at("reused").get<std::size_t>();
      rows.winners += row.at("provenance") == "measured" ? 1U : 0U;
    }
    return rows;
  }

  // Every trial with its samples; none before there is a file.
  [[nodiscard]] std::set<std::string> stored() const {
    std::set<std::string> trials;
    try {
      TuneOptions options;
      options.device = query_device(0);
      Store store = Store::open(db(), Store::Mode::kReadOnly);
      const std::int64_t run = store.begin_run(describe_run(options, device_sources_from("").hash));
      for (const int m : kTokens) {
        for (const Trial& trial : store.trials(run, {kProblem, m})) {
          std::ostringstream text;
          text << m << ' ' << to_string(trial.candidate) << ' ' << to_string(trial.outcome);
          for (const double time : trial.time_us) text << ' ' << time;
          trials.insert(text.str());
        }
      }
    } catch (const Error&) {
      trials.clear();  // no file yet, or the schema is being written
    }
    return trials;
  }

 private:
  fs::path folder_ = fs::temp_directory_path() / "w4tune_resume";
};

int exit_code_of(pid_t child) {
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

// The processes that `parent` has started and that still run.
std::vector<pid_t> children_of(pid_t parent) {
  std::vector<pid_t> children;
  for (const auto& entry : fs::directory_iterator("/proc")) {
    const std::string name = entry.path().filename().string();
    if (name.find_first_not_of("0123456789") != std::string::npos) continue;
    std::string text;
    std::getline(std::ifstream(entry.path() / "stat"), text);
    const auto end = text.rfind(')');  // of the program's name, which may hold anything
    if (end == std::string::npos) continue;
    std::istringstream fields(text.substr(end + 1));
    char state = 0;
    pid_t its_parent = 0;
    if (fields >> state >> its_parent && its_parent == parent) children.push_back(std::stoi(name));
  }
  return children;
}

// Whether a process runs; one that has ended and waits for init to notice does not.
bool is_running(pid_t pid) {
  std::string text;
  std::getline(std::ifstream("/proc/" + std::to_string(pid) + "/stat"), text);
  const auto end = text.rfind(')');
  return end != std::string::npos && end + 2 < text.size() && text[end + 2] != 'Z' &&
         text[end + 2] != 'X';
}

TEST_F(Resume, KilledAtAnyMomentNothingIsLostOrMeasuredTwice) {
  std::minstd_rand random(std::random_device{}());
  std::set<std::string> known;
  std::size_t orphans_looked_for = 0;
  for (int kill = 0; kill < 20; ++kill) {
    const pid_t tuner = start("killed.json");
    // Every other time amid the candidates, else at any moment from the start on.
    for (int i = 0; kill % 2 == 1 && i < 600 && stored().size() == known.size(); ++i) {
      if (::waitpid(tuner, nullptr, WNOHANG) != 0) break;
      std::this_thread::sleep_for(20ms);
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(random() % (kill % 2 == 1 ? 200 : 1500)));
    const std::vector<pid_t> measuring = children_of(tuner);
    ::kill(tuner, SIGKILL);
    exit_code_of(tuner);
    for (const pid_t child : measuring) {
      ++orphans_looked_for;
      for (int i = 0; i < 1000 && is_running(child); ++i) std::this_thread::sleep_for(10ms);
      EXPECT_FALSE(is_running(child)) << "the measuring process outlives its tuner";
    }
    const std::set<std::string> now = stored();
    for (const std::string& trial : known) EXPECT_TRUE(now.contains(trial)) << "lost: " << trial;
    known = now;
  }
  EXPECT_GT(orphans_looked_for, 5U);

  ASSERT_EQ(exit_code_of(start("last.json")), 0);
  const Rows last = rows_of("last.json");
  EXPECT_EQ(last.winners, kTokens.size());
  EXPECT_EQ(known.size() + last.evaluated, stored().size()) << "a trial was measured again";
  EXPECT_GE(stored().size(), kTokens.size() * kEvaluations);
  EXPECT_EQ(Store::open(db(), Store::Mode::kReadOnly).winners(query_device(0)).size(),
            kTokens.size());

  // Once more: everything is known.
  ASSERT_EQ(exit_code_of(start("again.json")), 0);
  const Rows again = rows_of("again.json");
  EXPECT_EQ(again.evaluated, 0U);
  EXPECT_EQ(again.reused, 0U);
  EXPECT_EQ(again.winners, kTokens.size());
}

TEST_F(Resume, TwoTunersShareADatabase) {
  const pid_t first = start("first.json");
  const pid_t second = start("second.json");
  EXPECT_EQ(exit_code_of(first), 0);
  EXPECT_EQ(exit_code_of(second), 0);
  for (const char* report : {"first.json", "second.json"}) {
    EXPECT_EQ(rows_of(report).winners, kTokens.size());
  }
  EXPECT_GE(stored().size(), kTokens.size() * kEvaluations);
  EXPECT_EQ(Store::open(db(), Store::Mode::kReadOnly).winners(query_device(0)).size(),
            kTokens.size());
  ASSERT_EQ(exit_code_of(start("after.json")), 0);
  EXPECT_EQ(rows_of("after.json").evaluated, 0U);
}

}  // namespace
}  // namespace w4tune

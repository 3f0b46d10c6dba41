// w4tune replay: how close a search strategy gets to the best of recorded spaces; needs no GPU.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <nlohmann/json.hpp>
#include <thread>

#include "cli/command.h"
#include "cli/options.h"
#include "cli/status_line.h"
#include "cli/table.h"
#include "tuner/recorded.h"
#include "w4tune/error.h"

namespace w4tune {
namespace {

using Clock = std::chrono::steady_clock;

struct Options {
  std::vector<std::string> files;
  std::string strategy{strategies().front().name};
  std::vector<int> evaluations = ReplayOptions{}.evaluations;
  int seeds = ReplayOptions{}.seeds;
  int threads = static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
  bool quiet = false;
  bool json = false;
};

// Says what goes on once that has taken a second: on a terminal all the time, elsewhere now and
// then.
class ReplayProgress {
 public:
  explicit ReplayProgress(bool quiet) : quiet_(quiet), line_(quiet) {}

  void begin(std::string what) {
    what_ = std::move(what);
    start_ = last_ = Clock::now();
    is_said_ = false;
    line_.show(what_ + " ...");
  }

  void update(int done, int total) {
    const Clock::time_point now = Clock::now();
    const auto pause = line_.is_terminal() ? std::chrono::milliseconds(200) : kPause;
    if (quiet_ || now - start_ < kPatience || (is_said_ && now - last_ < pause)) return;
    const double elapsed = std::chrono::duration<double>(now - start_).count();
    const std::string line = fmt::format("{}: {} of {} searches, {} left", what_, done, total,
                                         duration_text(elapsed / done * (total - done)));
    if (line_.is_terminal()) {
      line_.show(line);
    } else {
      line_.print(line);
    }
    is_said_ = true;
    last_ = now;
  }

  void reading(const std::string& file) { line_.show("reading " + file + " ..."); }
  void end() { line_.clear(); }

 private:
  static constexpr auto kPatience = std::chrono::milliseconds(1000);
  static constexpr auto kPause = std::chrono::milliseconds(10000);

  bool quiet_;
  StatusLine line_;
  std::string what_;
  bool is_said_ = false;
  Clock::time_point start_;
  Clock::time_point last_;
};

nlohmann::json rows_json(const std::vector<ReplayRow>& rows) {
  nlohmann::json out = nlohmann::json::array();
  for (const ReplayRow& row : rows) {
    out.push_back({{"evaluations", row.evaluations},
                   {"mean", row.mean},
                   {"deviation", row.deviation},
                   {"worst", row.worst},
                   {"random", row.random}});
  }
  return out;
}

std::string rows_text(const std::vector<ReplayRow>& rows) {
  std::vector<std::vector<std::string>> table = {
      {">evaluations", ">mean", ">deviation", ">worst", ">random"}};
  for (const ReplayRow& row : rows) {
    table.push_back({fmt::format("{}", row.evaluations), fmt::format("{:.4f}", row.mean),
                     fmt::format("{:.4f}", row.deviation), fmt::format("{:.4f}", row.worst),
                     fmt::format("{:.4f}", row.random)});
  }
  return format_table(table);
}

int run(const Options& options) {
  const Strategy& strategy = find_strategy(options.strategy);
  ReplayProgress progress(options.quiet);
  ReplayOptions replaying;
  replaying.evaluations = options.evaluations;
  replaying.seeds = options.seeds;
  replaying.threads = options.threads;
  replaying.progress = [&](int done) { progress.update(done, options.seeds); };
  nlohmann::json document = nlohmann::json::array();
  for (const std::string& file : options.files) {
    progress.reading(file);
    for (const RecordedSpace& recorded : read_recorded(file)) {
      progress.begin(recorded.name);
      const std::vector<ReplayRow> rows = replay(recorded, strategy, replaying);
      progress.end();
      const std::size_t points = recorded.costs.size();
      document.push_back({{"file", file},
                          {"space", recorded.name},
                          {"configurations", points},
                          {"failed", recorded.failed()},
                          {"best", recorded.best()},
                          {"strategy", strategy.name},
                          {"seeds", options.seeds},
                          {"rows", rows_json(rows)}});
      if (options.json) continue;
      fmt::print("{}\n{} configurations, {} failed; best / found by {}, {} seeds\n{}\n",
                 recorded.name, points, recorded.failed(), strategy.name, options.seeds,
                 rows_text(rows));
    }
  }
  if (options.json) fmt::print("{}\n", document.dump(1));
  return kExitOk;
}

}  // namespace

void add_replay(CLI::App& app, Action& action) {
  auto options = std::make_shared<Options>();
  CLI::App* command =
      app.add_subcommand("replay", "Judge a search strategy on recorded spaces, without a GPU");
  command->footer(
      "FILE is a Kernel Tuner cache file or a T4 file, plain or gzip, or a cache file of w4tune\n"
      "whose trials were measured. Printed is the best time of the space over the best found, by\n"
      "mean, standard deviation and worst of the seeds, and what a random search reaches on\n"
      "average. A configuration that failed counts as an evaluation.\n"
      "Examples:\n"
      "  w4tune replay gemm.json.gz\n"
      "  w4tune replay gemm.json.gz --strategy greedy --evals 50,100 --seeds 200\n"
      "  w4tune replay *_T4.json.gz --json\n"
      "  w4tune replay w4tune.db --strategy ranked --evals 20,40");
  command->add_option("FILE", options->files, "Recorded spaces")->required()->type_name("");
  add_strategy_option(*command, options->strategy);
  command
      ->add_option("--evals", options->evaluations, "Numbers of distinct evaluations to judge at")
      ->type_name("N,...")
      ->delimiter(',')
      ->check(CLI::Range(1, 1'000'000))
      ->capture_default_str();
  command->add_option("--seeds", options->seeds, "Searches, each with a seed of its own: 1, 2, ...")
      ->check(CLI::Range(1, 100'000))
      ->capture_default_str();
  command->add_option("--threads", options->threads, "Searches at the same time (default: cores)")
      ->check(CLI::Range(1, 1024));
  command->add_flag("--quiet", options->quiet, "No progress");
  add_json_option(*command, options->json);
  command->callback([options, &action] { action = [options] { return run(*options); }; });
}

}  // namespace w4tune

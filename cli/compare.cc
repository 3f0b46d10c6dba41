// w4tune compare: two reports, workload by workload.
#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>

#include "cli/command.h"
#include "cli/options.h"
#include "cli/table.h"
#include "core/stats.h"
#include "tuner/report.h"
#include "w4tune/error.h"

namespace w4tune {
namespace {

struct Options {
  std::string a;
  std::string b;
  bool json = false;
};

const ReportRow* find_row(const Report& report, const Workload& workload) {
  for (const ReportRow& row : report.rows) {
    if (row.workload == workload) return &row;
  }
  return nullptr;
}

// Entries of the environment that say where and how it was measured, and differ.
std::vector<std::string> differences(const Report& a, const Report& b) {
  static const std::set<std::string> ignored = {"date", "copy_gbps", "mma_tflops"};
  std::vector<std::string> lines;
  for (const auto& [key, value] : a.environment) {
    const auto other = b.environment.find(key);
    const std::string theirs = other == b.environment.end() ? "(absent)" : other->second;
    if (ignored.count(key) == 0 && value != theirs) {
      lines.push_back(fmt::format("{}: {} -> {}", key, value, theirs));
    }
  }
  return lines;
}

int run(const Options& options) {
  const Report a = read_report(options.a);
  const Report b = read_report(options.b);
  nlohmann::json rows = nlohmann::json::array();
  std::vector<std::vector<std::string>> table = {
      {"problem", ">M", ">A us", ">B us", ">A/B", "", "same kernel"}};
  std::vector<double> ratios;
  std::vector<std::string> only;
  for (const ReportRow& mine : a.rows) {
    const ReportRow* theirs = find_row(b, mine.workload);
    if (theirs == nullptr) {
      only.push_back(fmt::format("only in A: {}", to_string(mine.workload)));
      continue;
    }
    const double ratio = mine.time_us_median / theirs->time_us_median;
    ratios.push_back(ratio);
    const bool mixed = mine.provenance != theirs->provenance;
    const std::string note =
        mixed ? mine.provenance + " -> " + theirs->provenance : mine.provenance;
    table.push_back({to_string(mine.workload.problem), fmt::format("{}", mine.workload.m),
                     fmt::format("{:.2f}", mine.time_us_median),
                     fmt::format("{:.2f}", theirs->time_us_median), fmt::format("{:.3f}", ratio),
                     note, mine.config == theirs->config ? "yes" : "no"});
    rows.push_back({{"problem", to_string(mine.workload.problem)},
                    {"m", mine.workload.m},
                    {"a_us", mine.time_us_median},
                    {"b_us", theirs->time_us_median},
                    {"ratio", ratio},
                    {"a_provenance", mine.provenance},
                    {"b_provenance", theirs->provenance},
                    {"a_config", mine.config},
                    {"b_config", theirs->config}});
  }
  for (const ReportRow& theirs : b.rows) {
    if (find_row(a, theirs.workload) == nullptr) {
      only.push_back(fmt::format("only in B: {}", to_string(theirs.workload)));
    }
  }
  if (ratios.empty()) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("{} and {} have no workload in common.", options.a, options.b));
  }
  const std::vector<std::string> changed = differences(a, b);
  if (options.json) {
    fmt::print("{}\n", nlohmann::json{{"rows", rows},
                                      {"geometric_mean", geometric_mean(ratios)},
                                      {"environment_differences", changed},
                                      {"unmatched", only}}
                           .dump(1));
    return kExitOk;
  }
  for (const std::string& line : changed) fmt::print("differs in {}\n", line);
  fmt::print("{}", format_table(table));
  for (const std::string& line : only) fmt::print("{}\n", line);
  fmt::print("geometric mean of A/B over {} workloads: {:.3f} (above 1: B is faster)\n",
             ratios.size(), geometric_mean(ratios));
  return kExitOk;
}

}  // namespace

void add_compare(CLI::App& app, Action& action) {
  auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand("compare", "Compare two reports");
  command->footer(
      "Prints the ratio of medians for each workload and their geometric mean; it does not judge\n"
      "significance. Exit codes: 0 compared (whatever the ratios), 1 a report is missing, 2 a file "
      "is\n"
      "not a report or nothing matches.\n"
      "Example:\n  w4tune compare before.json after.json");
  command->add_option("a", options->a, "Report A")->required()->type_name("A");
  command->add_option("b", options->b, "Report B")->required()->type_name("B");
  add_json_option(*command, options->json);
  command->callback([options, &action] { action = [options] { return run(*options); }; });
}

}  // namespace w4tune

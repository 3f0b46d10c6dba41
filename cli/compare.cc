// w4tune compare: reports against the first of them, workload by workload.
#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/command.h"
#include "cli/comparison_output.h"
#include "cli/find_report.h"
#include "cli/options.h"
#include "cli/terminal.h"
#include "w4tune/error.h"

namespace w4tune {
namespace {

constexpr std::size_t kMostReports = 26;  // letters

struct Options {
  std::string a;
  std::string b;
  std::vector<std::string> more;
  std::string gpu;
  std::string threshold = "1%";
  std::string run_noise = "0.3%";
  std::string clocks = "both";
  bool ignore_protocol = false;
  std::vector<std::string> fail_on;
  bool json = false;
  bool markdown = false;
  bool csv = false;
};

ComparisonOptions comparison_options(const Options& options) {
  ComparisonOptions out;
  out.threshold = parse_share(options.threshold);
  out.run_noise = parse_share(options.run_noise);
  out.clock_rule = parse_clock_rule(options.clocks);
  out.ignore_protocol = options.ignore_protocol;
  return out;
}

int exit_code(const std::vector<Comparison>& comparisons, const std::vector<std::string>& fail_on) {
  const auto fails = [&](const char* what, auto&& has) {
    return std::find(fail_on.begin(), fail_on.end(), what) != fail_on.end() &&
           std::any_of(comparisons.begin(), comparisons.end(), has);
  };
  const auto any = [](Verdict verdict) {
    return [verdict](const Comparison& each) { return each.count(verdict) > 0; };
  };
  if (fails("slower", any(Verdict::kSlower))) return kExitSlower;
  if (fails("unclear", any(Verdict::kUnclear))) return kExitUnclear;
  if (fails("missing", [](const Comparison& each) { return !each.missing.empty(); })) {
    return kExitMissing;
  }
  return kExitOk;
}

int run(const Options& options) {
  Compared compared;
  compared.options = comparison_options(options);
  std::vector<std::string> names = {options.a, options.b};
  names.insert(names.end(), options.more.begin(), options.more.end());
  if (names.size() > kMostReports) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("compare takes at most {} reports.", kMostReports));
  }
  for (const std::string& name : names) {
    compared.reports.push_back(read_report(find_report(name), [&](const DeviceInfo& device) {
      return is_named(device, options.gpu);
    }));
  }
  compared.comparisons = compare_reports(compared.reports, compared.options);
  const int code = exit_code(compared.comparisons, options.fail_on);
  for (const Comparison& comparison : compared.comparisons) {
    if (!comparison.rows.empty() || code == kExitMissing) continue;
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("{} and {} have no workload in common.", comparison.a, comparison.b));
  }
  if (options.json) {
    nlohmann::json document = comparison_json(compared);
    document["exit_code"] = code;
    fmt::print("{}\n", document.dump(1));
  } else if (options.markdown) {
    fmt::print("{}", comparison_markdown(compared));
  } else if (options.csv) {
    fmt::print("{}", comparison_csv(compared));
  } else {
    fmt::print("{}", comparison_text(compared, wants_colour()));
  }
  return code;
}

}  // namespace

void add_compare(CLI::App& app, Action& action) {
  auto options = std::make_shared<Options>();
  CLI::App* command =
      app.add_subcommand("compare", "Which workloads are faster in one report than in another");
  command->footer(
      "A report is a file of tune or bench, a cache file, or a name in results/. For each "
      "workload\n"
      "A's time over B's, with its 95 % interval:\n"
      "  FASTER, SLOWER  B is, by more than the threshold, beyond doubt among all workloads\n"
      "  SAME            the interval lies within the threshold\n"
      "  UNCLEAR         anything else, with the reason\n"
      "\n"
      "Exit codes:\n"
      "  0  compared, and nothing of --fail-on\n"
      "  1  a file is missing, or a cache file cannot be used\n"
      "  2  usage; a file that is no report, is damaged or newer than this w4tune; nothing in "
      "common\n"
      "  5, 6, 7  with --fail-on: something is slower, unclear, missing (the first that applies)\n"
      "Examples:\n"
      "  w4tune compare before.json after.json\n"
      "  w4tune compare before.json after.json --fail-on slower,missing --markdown\n"
      "  w4tune compare a40.json a40_power_capped.json a40_locked.json --clocks time\n"
      "  w4tune compare pi05.db pi05_new_driver.db --gpu a40 --threshold 2%");
  command->add_option("A", options->a, "The report that others are held against")
      ->required()
      ->type_name("");
  command->add_option("B", options->b, "A report held against it")->required()->type_name("");
  command->add_option("C", options->more, "More of them")->type_name("");
  command->add_option("--threshold", options->threshold, "A smaller share of a time is the same")
      ->type_name("SHARE")
      ->capture_default_str();
  command
      ->add_option("--run-noise", options->run_noise,
                   "How far runs of one kernel deviate, at least; baselines may show more")
      ->type_name("SHARE")
      ->capture_default_str();
  command
      ->add_option("--clocks", options->clocks,
                   "Where SM clocks differ, judge by time, cycles, or both (must agree)")
      ->type_name("RULE")
      ->capture_default_str();
  command->add_flag("--ignore-protocol", options->ignore_protocol,
                    "Judge times that were taken by different protocols, too");
  command->add_option("--gpu", options->gpu, "Of a cache file the winners of this GPU")
      ->type_name("NAME");
  command->add_option("--fail-on", options->fail_on, "Say by the exit code that something is so")
      ->type_name("WHAT,...")
      ->delimiter(',')
      ->allow_extra_args(false)  // they are reports
      ->check(CLI::IsMember({"slower", "unclear", "missing"}));
  add_json_option(*command, options->json);
  CLI::Option* json = command->get_option("--json");
  CLI::Option* markdown =
      command->add_flag("--markdown", options->markdown, "Print Markdown")->excludes(json);
  command->add_flag("--csv", options->csv, "Print CSV, one line a workload")
      ->excludes(json)
      ->excludes(markdown);
  command->callback([options, &action] { action = [options] { return run(*options); }; });
}

}  // namespace w4tune

// w4tune lint: what is wrong, old or useless in a cache file.
#include "cache/lint.h"

#include <fmt/format.h>

#include <memory>
#include <nlohmann/json.hpp>

#include "cli/command.h"
#include "cli/options.h"
#include "gpu/device.h"
#include "templates/family.h"
#include "tuner/tune.h"

namespace w4tune {
namespace {

struct Options {
  std::string file = default_db_path();
  bool json = false;
};

LintReference reference_here() {
  LintReference reference{
      .source_hash = device_sources_from("").hash, .present = {}, .driver = describe_driver()};
  for (int ordinal = 0; ordinal < device_count(); ++ordinal) {
    reference.present.push_back(query_device(ordinal));
  }
  return reference;
}

int run(const Options& options) {
  Store store = Store::open_copy(options.file);
  const std::vector<LintFinding> findings = lint(store, reference_here());
  nlohmann::json document = nlohmann::json::array();
  for (const LintFinding& finding : findings) {
    if (options.json) {
      document.push_back({{"kind", to_string(finding.kind)},
                          {"where", finding.where},
                          {"what", finding.what},
                          {"remedy", finding.remedy}});
    } else {
      fmt::print("{}: {}: {}. {}\n", to_string(finding.kind), finding.where, finding.what,
                 finding.remedy);
    }
  }
  if (options.json) {
    fmt::print("{}\n", document.dump(1));
  } else if (findings.empty()) {
    fmt::print("{}: nothing to say\n", options.file);
  }
  return findings.empty() ? kExitOk : kExitFindings;
}

}  // namespace

void add_lint(CLI::App& app, Action& action) {
  auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand("lint", "What is wrong, old or useless in a cache file");
  command->footer(
      "One line for each finding: what, where, what to do. Needs no GPU and changes nothing.\n"
      "  hidden        a predicted row at an M that has a measured one\n"
      "  never-chosen  a row that serves no M\n"
      "  gap           M that no row serves\n"
      "  faster-trial  a stored trial is faster than the winner, beyond doubt and a tie\n"
      "  faster-row    the row of a larger M is faster, and works for this one's M as well\n"
      "  other-source  made from other device sources than this w4tune's\n"
      "  other-driver  measured with another driver than the one here, or than the newest rows\n"
      "  no-cubin      the cubin is missing or damaged\n"
      "  no-utilities  the kernels that pack weights are missing\n"
      "Exit codes: 0 nothing found, 1 findings (or, with a line on standard error, a file that\n"
      "cannot be read), 2 usage.\n"
      "Examples:\n"
      "  w4tune lint\n"
      "  w4tune lint pi05.db --json");
  command->add_option("file", options->file, "The cache file")
      ->type_name("FILE")
      ->capture_default_str();
  add_json_option(*command, options->json);
  command->callback([options, &action] { action = [options] { return run(*options); }; });
}

}  // namespace w4tune

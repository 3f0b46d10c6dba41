// w4tune merge: several cache files become one.
#include "cache/merge.h"

#include <fmt/format.h>

#include <memory>
#include <nlohmann/json.hpp>

#include "cli/command.h"
#include "cli/options.h"

namespace w4tune {
namespace {

struct Options {
  std::string out;
  std::vector<std::string> inputs;
  bool force = false;
  bool json = false;
};

std::string_view ground_text(Ground ground) {
  return ground == Ground::kFaster ? "faster" : "newer";
}

nlohmann::json claimant_json(const Claimant& claimant) {
  return {{"file", claimant.file},
          {"kernel", served_text(claimant.row.winner)},
          {"time_us", served_us(claimant.row.winner)},
          {"run", claimant.row.run.started_at}};
}

nlohmann::json conflict_json(const WinnerConflict& conflict) {
  const Claimant& kept = conflict.claimants[conflict.kept];
  nlohmann::json others = nlohmann::json::array();
  for (const Slower& slower : conflict.others) {
    others.push_back(claimant_json(conflict.claimants[slower.claimant]));
    others.back()["slower_by"] = slower.by;
    others.back()["interval"] = nullptr;
    if (slower.at_least) others.back()["interval"] = {*slower.at_least, *slower.at_most};
  }
  return {{"gpu", kept.row.run.device.name}, {"problem", to_string(kept.row.winner.problem)},
          {"m", kept.row.winner.m},          {"provenance", to_string(kept.row.winner.provenance)},
          {"kept", claimant_json(kept)},     {"because", ground_text(conflict.ground)},
          {"others", std::move(others)}};
}

// "conflict: NVIDIA A40, gemm_n4096_k1024_g128_f16 m=10, measured: a.db stays (faster: 4.00 us);
// b.db: 4.10 us, 2.50 % slower (95 %: 1.80 to 3.21 %)"
std::string conflict_line(const WinnerConflict& conflict) {
  const Claimant& kept = conflict.claimants[conflict.kept];
  std::string line =
      fmt::format("conflict: {}, {}, {}: {} stays ({}: {:.2f} us)", kept.row.run.device.name,
                  to_string(Workload{kept.row.winner.problem, kept.row.winner.m}),
                  to_string(kept.row.winner.provenance), kept.file, ground_text(conflict.ground),
                  served_us(kept.row.winner));
  for (const Slower& slower : conflict.others) {
    const Claimant& other = conflict.claimants[slower.claimant];
    line += fmt::format("; {}: {:.2f} us, {}", other.file, served_us(other.row.winner),
                        slower_text(slower));
  }
  return line;
}

int run(const Options& options) {
  Merge merge(options.inputs, options.out, options.force);
  nlohmann::json conflicts = nlohmann::json::array();
  for (const WinnerConflict& conflict : merge.conflicts()) {
    if (options.json) {
      conflicts.push_back(conflict_json(conflict));
    } else {
      fmt::print("{}\n", conflict_line(conflict));
    }
  }
  const MergeCounts counts = merge.write();
  if (options.json) {
    fmt::print("{}\n", nlohmann::json{{"file", options.out},
                                      {"inputs", counts.inputs},
                                      {"devices", counts.devices},
                                      {"winners", counts.winners},
                                      {"trials", counts.trials},
                                      {"conflicts", std::move(conflicts)}}
                           .dump(1));
  } else {
    fmt::print("{}: inputs {}, GPUs {}, winners {}, trials {}, conflicts {}\n", options.out,
               counts.inputs, counts.devices, counts.winners, counts.trials,
               merge.conflicts().size());
  }
  return kExitOk;
}

}  // namespace

void add_merge(CLI::App& app, Action& action) {
  auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand("merge", "Make one cache file of several");
  command->footer(
      "The inputs are not changed, and their order does not matter. Where several have another\n"
      "winner for one GPU, problem, M and provenance, the line says whose stays: of measured ones\n"
      "the fastest by the samples of its final, where they were measured by one protocol; else,\n"
      "and of predicted ones, that of the newest run.\n"
      "OUT appears as a whole or not at all. One that exists must be an input or needs --force,\n"
      "and no other process may use it meanwhile.\n"
      "Examples:\n"
      "  w4tune merge all.db shard_1.db shard_2.db\n"
      "  w4tune merge pi05.db pi05.db from_the_other_machine.db");
  command->add_option("out", options->out, "The file to write")->required()->type_name("OUT");
  command->add_option("in", options->inputs, "Cache files, exported ones too")
      ->required()
      ->type_name("IN...");
  command->add_flag("--force", options->force, "Replace OUT although it is none of the inputs");
  add_json_option(*command, options->json);
  command->callback([options, &action] { action = [options] { return run(*options); }; });
}

}  // namespace w4tune

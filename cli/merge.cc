// w4tune merge: several cache files become one.
#include "cache/merge.h"

#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "cli/command.h"
#include "cli/options.h"
#include "gpu/device.h"
#include "tuner/retime.h"
#include "tuner/tune.h"
#include "w4tune/error.h"

namespace w4tune {
namespace {

struct Options {
  std::string out;
  std::vector<std::string> inputs;
  bool force = false;
  bool measure = false;
  bool json = false;
};

std::string_view ground_text(Ground ground) {
  switch (ground) {
    case Ground::kFaster: return "faster";
    case Ground::kNewer: return "newer";
    case Ground::kRemeasured: return "faster, measured anew";
  }
  return "?";
}

// The row that stays, as it will be written.
const WinnerRow& kept_row(const WinnerConflict& conflict) {
  return conflict.remeasured ? *conflict.remeasured : conflict.claimants[conflict.kept].row;
}

// How the row was measured, as far as it bears on which kernel is the fastest.
Protocol protocol_of(const RunInfo& run) {
  Protocol protocol;
  protocol.seed = run.seed;
  protocol.dependent = run.protocol.find(kDependentText) != std::string::npos;
  return protocol;
}

std::optional<int> ordinal_of(const DeviceInfo& device) {
  for (int ordinal = 0; ordinal < device_count(); ++ordinal) {
    const DeviceInfo here = query_device(ordinal);
    if (here.name == device.name && here.sm == device.sm && here.sm_count == device.sm_count) {
      return ordinal;
    }
  }
  return std::nullopt;
}

std::vector<Entrant> entrants_of(const Merge& merge, const WinnerConflict& conflict) {
  std::vector<Entrant> entrants;
  for (const Claimant& claimant : conflict.claimants) {
    entrants.push_back({claimant.row.winner, merge.cubin_of(claimant)});
  }
  return entrants;
}

// Decides the conflicts of measured winners of GPUs that are here by timing the claimants in turns.
// Returns how many.
int measure_conflicts(Merge& merge) {
  std::size_t workspace_bytes = 0;
  for (const WinnerConflict& conflict : merge.conflicts()) {
    for (const Claimant& claimant : conflict.claimants) {
      workspace_bytes = std::max(workspace_bytes, Retimer::workspace_for(claimant.row.winner));
    }
  }
  int count = 0;
  std::unique_ptr<Retimer> retimer;
  std::string made_for;
  for (WinnerConflict& conflict : merge.conflicts()) {
    const WinnerRow& kept = conflict.claimants[conflict.kept].row;
    const std::optional<int> ordinal = ordinal_of(kept.run.device);
    if (!ordinal || kept.winner.provenance != Provenance::kMeasured) continue;
    const Protocol protocol = protocol_of(kept.run);
    const std::string wanted = kept.run.device.name + protocol.text();
    if (wanted != made_for) {
      retimer.reset();
      retimer =
          std::make_unique<Retimer>(*ordinal, query_device(*ordinal), protocol, workspace_bytes);
      made_for = wanted;
    }
    Remeasured remeasured{.time_us = {},
                          .clock_mhz = {},
                          .driver = describe_driver(),
                          .started_at = timestamp_now(),
                          .protocol = protocol.text(),
                          .protocol_hash = protocol.hash()};
    for (Samples& samples : retimer->time(entrants_of(merge, conflict))) {
      remeasured.time_us.push_back(std::move(samples.time_us));
      remeasured.clock_mhz.push_back(std::move(samples.clock_mhz));
    }
    decide_by(conflict, remeasured);
    ++count;
  }
  return count;
}

nlohmann::json claimant_json(const std::string& file, const WinnerRow& row) {
  return {{"file", file},
          {"kernel", served_text(row.winner)},
          {"time_us", served_us(row.winner)},
          {"run", row.run.started_at}};
}

nlohmann::json conflict_json(const WinnerConflict& conflict) {
  const WinnerRow& kept = kept_row(conflict);
  nlohmann::json others = nlohmann::json::array();
  for (const Slower& slower : conflict.others) {
    const Claimant& other = conflict.claimants[slower.claimant];
    others.push_back(claimant_json(other.file, other.row));
    others.back()["slower_by"] = slower.by;
    others.back()["interval"] = nullptr;
    if (slower.at_least) others.back()["interval"] = {*slower.at_least, *slower.at_most};
  }
  return {{"gpu", kept.run.device.name},
          {"problem", to_string(kept.winner.problem)},
          {"m", kept.winner.m},
          {"provenance", to_string(kept.winner.provenance)},
          {"kept", claimant_json(conflict.claimants[conflict.kept].file, kept)},
          {"because", ground_text(conflict.ground)},
          {"others", std::move(others)}};
}

// "conflict: NVIDIA A40, gemm_n4096_k1024_g128_f16 m=10, measured: a.db stays (faster: 4.00 us);
// b.db: 2.50 % slower (95 %: 1.80 to 3.21 %)"
std::string conflict_line(const WinnerConflict& conflict) {
  const WinnerRow& kept = kept_row(conflict);
  std::string line = fmt::format(
      "conflict: {}, {}, {}: {} stays ({}: {:.2f} us)", kept.run.device.name,
      to_string(Workload{kept.winner.problem, kept.winner.m}), to_string(kept.winner.provenance),
      conflict.claimants[conflict.kept].file, ground_text(conflict.ground), served_us(kept.winner));
  for (const Slower& slower : conflict.others) {
    line += fmt::format("; {}: {}", conflict.claimants[slower.claimant].file, slower_text(slower));
  }
  return line;
}

int run(const Options& options) {
  if (options.measure && device_count() == 0) {
    throw Error(
        ErrorCode::kNoDevice,
        fmt::format("--measure: no GPU here: {} Leave it out: the stored samples decide then.",
                    no_device_reason()));
  }
  Merge merge(options.inputs, options.out, options.force);
  const int measured = options.measure ? measure_conflicts(merge) : 0;
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
                                      {"measured", measured},
                                      {"devices", counts.devices},
                                      {"winners", counts.winners},
                                      {"trials", counts.trials},
                                      {"conflicts", std::move(conflicts)}}
                           .dump(1));
  } else {
    fmt::print("{}: inputs {}, GPUs {}, winners {}, trials {}, conflicts {}{}\n", options.out,
               counts.inputs, counts.devices, counts.winners, counts.trials,
               merge.conflicts().size(),
               options.measure ? fmt::format(" ({} measured anew)", measured) : "");
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
      "and of predicted ones, that of the newest run. With --measure the measured ones of a GPU\n"
      "that is here are timed again, in turns, and the samples are stored.\n"
      "OUT appears as a whole or not at all. One that exists must be an input or needs --force,\n"
      "and no other process may use it meanwhile.\n"
      "Examples:\n"
      "  w4tune merge all.db shard_1.db shard_2.db\n"
      "  w4tune merge pi05.db pi05.db from_the_other_machine.db");
  command->add_option("out", options->out, "The file to write")->required()->type_name("OUT");
  command->add_option("in", options->inputs, "Cache files, exported ones too")
      ->required()
      ->type_name("IN...");
  command->add_flag("--measure", options->measure,
                    "Decide the conflicts of GPUs that are here by measuring in turns");
  command->add_flag("--force", options->force, "Replace OUT although it is none of the inputs");
  add_json_option(*command, options->json);
  command->callback([options, &action] { action = [options] { return run(*options); }; });
}

}  // namespace w4tune

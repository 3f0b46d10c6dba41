// w4tune show: what serves each M, from the cache file; needs no GPU.
#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "cache/store.h"
#include "cli/command.h"
#include "cli/options.h"
#include "cli/table.h"
#include "core/composite.h"
#include "tuner/baseline.h"
#include "tuner/fp16_intervals.h"
#include "w4tune/error.h"

namespace w4tune {
namespace {

constexpr const char* kSummaryHead =
    "Where FP16 is faster (each interval is judged at the M it was tuned at):\n";

struct Options {
  std::string db;
  std::string gpu;
  std::string problem;
  bool json = false;
};

nlohmann::json winner_json(const Winner& winner) {
  nlohmann::json out = {{"problem", to_string(winner.problem)},
                        {"m_tuned", winner.m},
                        {"provenance", to_string(winner.provenance)},
                        {"config", to_string(winner.candidate.config)},
                        {"split_k", winner.candidate.schedule.split_k},
                        {"raster", winner.candidate.schedule.raster},
                        {"registers", winner.registers},
                        {"smem_bytes", winner.footprint.smem_bytes},
                        {"spill_bytes", winner.spill_bytes},
                        {"time_us_median", winner.time_us_median},
                        {"floor_us", winner.floor_us},
                        {"floor_fraction", winner.floor_us / winner.time_us_median}};
  out.update(
      fp16_json(winner.m_lo, winner.m_hi, fp16_faster_by(served_us(winner), winner.baseline_us)));
  out["baseline_us"] =
      winner.baseline_us > 0.0 ? nlohmann::json(winner.baseline_us) : nlohmann::json(nullptr);
  out["baseline_note"] = baseline_note(winner.problem);
  out["served_us"] = served_us(winner);
  out["composite"] = nullptr;
  if (winner.composite) {
    out["composite"] = {{"config", to_string(*winner.composite)},
                        {"slice_rows", winner.composite->slice_rows},
                        {"scratch_bytes", winner.composite->scratch_bytes},
                        {"time_us_median", winner.composite->time_us_median}};
  }
  nlohmann::json ties = nlohmann::json::array();
  for (const Candidate& tied : winner.tie_set) ties.push_back(to_string(tied));
  out["tie_set"] = std::move(ties);
  return out;
}

// The kernel, and before it the composite that serves in its place.
std::string kernel_text(const Winner& winner) {
  std::string kernel = to_string(winner.candidate);
  if (!winner.composite) return kernel;
  return composite_text(to_string(*winner.composite),
                        static_cast<double>(winner.composite->scratch_bytes), winner.time_us_median,
                        kernel);
}

std::vector<std::string> winner_row(const Winner& winner) {
  const bool compared = winner.baseline_us > 0.0;
  const double time_us = served_us(winner);
  return {interval_text(winner.m_lo, winner.m_hi),
          fmt::format("{}", winner.m),
          std::string(to_string(winner.provenance)),
          fmt::format("{:.2f}", time_us),
          fmt::format("{:.0f} %", 100.0 * winner.floor_us / time_us),
          compared ? fmt::format("{:.2f}x", winner.baseline_us / time_us) : "-",
          fp16_text(fp16_faster_by(time_us, winner.baseline_us)),
          kernel_text(winner)};
}

int run(const Options& options) {
  std::optional<Problem> only;
  if (!options.problem.empty()) only = parse_problem(options.problem);
  const Store store = Store::open(options.db, Store::Mode::kReadOnly);
  nlohmann::json document = nlohmann::json::array();
  bool found = false;
  for (const DeviceInfo& device : store.devices()) {
    if (!is_named(device, options.gpu)) continue;
    std::vector<Winner> winners = store.winners(device);
    if (only) {
      winners.erase(std::remove_if(winners.begin(), winners.end(),
                                   [&](const Winner& winner) { return winner.problem != *only; }),
                    winners.end());
    }
    if (winners.empty()) continue;
    found = true;
    if (options.json) {
      nlohmann::json rows = nlohmann::json::array();
      for (const Winner& winner : winners) rows.push_back(winner_json(winner));
      document.push_back({{"gpu", device.name},
                          {"sm", device.sm},
                          {"sm_count", device.sm_count},
                          {"winners", std::move(rows)}});
      add_fp16(document.back(), fp16_intervals(winners));
      continue;
    }
    fmt::print("{} (sm_{}, {} SMs)\n", device.name, device.sm, device.sm_count);
    std::vector<std::vector<std::string>> table;
    for (std::size_t i = 0; i < winners.size(); ++i) {
      if (i == 0 || winners[i].problem != winners[i - 1].problem) {
        fmt::print("{}", format_table(table));
        const std::string note = baseline_note(winners[i].problem);
        fmt::print("\n{}{}\n", to_string(winners[i].problem),
                   note.empty() ? "" : fmt::format(" (over FP16: {})", note));
        table = {{">serves M", ">tuned at", "provenance", ">time us", ">of floor", ">over FP16",
                  "FP16 is", "kernel"}};
      }
      table.push_back(winner_row(winners[i]));
    }
    fmt::print("{}\n{}", format_table(table), kSummaryHead);
    for (const std::string& line : fp16_sentences(fp16_intervals(winners))) {
      fmt::print("  {}\n", line);
    }
    fmt::print("\n");
  }
  if (options.json) fmt::print("{}\n", document.dump(1));
  if (!found) {
    throw Error(
        ErrorCode::kNotFound,
        fmt::format("{} has no winners{}. Run 'w4tune tune' first.", options.db,
                    options.gpu.empty() && options.problem.empty() ? "" : " that fit the filter"));
  }
  return kExitOk;
}

}  // namespace

void add_show(CLI::App& app, Action& action) {
  auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand("show", "What serves each M, and how good it is");
  command->footer(
      "Examples:\n"
      "  w4tune show\n"
      "  w4tune show --gpu a40 --problem gemm_n16384_k2048_g128_f16\n"
      "  w4tune show --db pi05.db --json");
  add_db_option(*command, options->db);
  command->add_option("--gpu", options->gpu, "Rows of this GPU only")->type_name("NAME");
  command->add_option("--problem", options->problem, "Rows of this problem only")
      ->type_name("TEXT");
  add_json_option(*command, options->json);
  command->callback([options, &action] { action = [options] { return run(*options); }; });
}

}  // namespace w4tune

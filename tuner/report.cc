#include "tuner/report.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "core/composite.h"
#include "core/stats.h"
#include "tuner/baseline.h"
#include "tuner/fp16_intervals.h"
#include "w4tune/error.h"

namespace w4tune {
namespace {

using nlohmann::json;

// "13.0" of "580.159.04 (CUDA 13.0)".
std::string cuda_of(const std::string& driver) {
  constexpr std::string_view kMark = "(CUDA ";
  const auto begin = driver.find(kMark);
  if (begin == std::string::npos) return driver;
  return driver.substr(begin + kMark.size(), driver.find(')', begin) - begin - kMark.size());
}

json environment_json(const RunInfo& run, const TuneResult& result) {
  const Ceilings& ceilings = result.ceilings;
  return {{"gpu", run.device.name},
          {"sm", run.device.sm},
          {"sm_count", run.device.sm_count},
          {"l2_bytes", run.device.l2_bytes},
          {"driver", run.driver},
          {"cuda", cuda_of(run.driver)},
          {"nvrtc", run.nvrtc},
          {"w4tune", run.version},
          {"commit", run.commit},
          {"source_hash", run.source_hash},
          {"protocol", run.protocol},
          {"protocol_hash", run.protocol_hash},
          {"copy_gbps", ceilings.copy_gbps},
          {"mma_tflops", ceilings.mma_tflops},
          {"mma_source", ceilings.mma_source},
          {"mma_sync_tflops",
           ceilings.mma_sync_tflops > 0.0 ? json(ceilings.mma_sync_tflops) : json(nullptr)},
          {"mma_denormals", result.mma_denormals ? json(*result.mma_denormals) : json(nullptr)},
          {"assumed", result.assumed},
          {"date", run.started_at}};
}

json row_json(const WorkloadResult& row) {
  const Problem& problem = row.workload.problem;
  json out = {{"op", to_string(problem.op)},
              {"n", problem.n},
              {"k", problem.k},
              {"group", problem.group_size},
              {"dtype", to_string(problem.dtype)},
              {"m", row.workload.m}};
  out["evaluated"] = row.evaluated;
  out["failed"] = row.failed;
  out["reused"] = row.reused;
  if (!row.winner) {
    out["provenance"] = "untuned";
  } else {
    const Winner& winner = *row.winner;
    out["provenance"] = to_string(winner.provenance);
    out.update(fp16_json(
        winner.m_lo, winner.m_hi,
        fp16_faster_by(served_us(winner), row.baseline ? median(row.baseline->time_us) : 0.0)));
    out["family"] = winner.candidate.config.family;
    out["config"] = to_string(winner.candidate.config);
    out["split_k"] = winner.candidate.schedule.split_k;
    out["raster"] = winner.candidate.schedule.raster;
    out["registers"] = winner.registers;
    out["smem_bytes"] = winner.footprint.smem_bytes;
    out["spill_bytes"] = winner.spill_bytes;
    out["time_us_median"] = winner.time_us_median;
    out["time_us_samples"] = winner.time_us;
    out["served_us"] = served_us(winner);
    if (winner.composite) {
      const Composite& composite = *winner.composite;
      out["composite"] = {{"config", to_string(composite)},
                          {"slice_rows", composite.slice_rows},
                          {"scratch_bytes", composite.scratch_bytes},
                          {"time_us_median", composite.time_us_median},
                          {"time_us_samples", composite.time_us},
                          {"error_worst_ratio", composite.error_worst_ratio}};
    } else {
      out["composite"] = {{"left_out", row.composite_left_out}};
    }
    out["clock_mhz_median"] =
        winner.clock_mhz.empty() ? json(nullptr) : json(median(winner.clock_mhz));
    out["clock_mhz_samples"] = winner.clock_mhz;
    out["floor_us"] = winner.floor_us;
    out["floor_fraction"] = winner.floor_us / winner.time_us_median;
    if (winner.provenance == Provenance::kMeasured) {
      out["error"] = {{"worst_ratio", winner.error.worst_ratio},
                      {"relative_norm", winner.error.relative_norm},
                      {"max_abs", winner.error.max_abs}};
    }
  }
  const auto line = [](const std::vector<double>& samples) {
    return json{{"time_us_median", median(samples)}, {"time_us_samples", samples}};
  };
  if (row.lines) {
    out["dependent"] = line(row.lines->dependent_us);
    out["read"] = line(row.lines->read_us);
    out["dependent_read"] = line(row.lines->dependent_read_us);
  }
  out["baselines"] = json::object();
  if (row.baseline) {
    out["baselines"][row.baseline->name] = {{"time_us_median", median(row.baseline->time_us)},
                                            {"time_us_samples", row.baseline->time_us},
                                            {"clock_mhz_median", median(row.baseline->clock_mhz)},
                                            {"clock_mhz_samples", row.baseline->clock_mhz},
                                            {"detail", row.baseline->detail},
                                            {"note", baseline_note(problem)}};
  }
  return out;
}

json fit_json(const ModelFit& fit) {
  return {{"workloads", fit.workloads},
          {"trials", fit.trials},
          {"spearman", fit.spearman ? json(*fit.spearman) : json(nullptr)},
          {"top_recall", fit.top_recall}};
}

json fits_json(const ModelFits& fits) {
  json out = fit_json(fits.all);
  out["best_share"] = ModelFit::kBestShare;
  out["in_predicted_best_share"] = ModelFit::kInShare;
  out["families"] = json::object();
  for (const auto& [family, fit] : fits.families) out["families"][family] = fit_json(fit);
  return out;
}

double baseline_us(const json& row) {
  for (const auto& [name, baseline] : row.at("baselines").items()) {
    return baseline.at("time_us_median").get<double>();
  }
  return 0.0;
}

// What serves a row of a report: its composite where it has one, else its kernel. Reports of before
// composites have no such entry.
const json& served(const json& row) {
  const auto composite = row.find("composite");
  return composite != row.end() && composite->contains("time_us_median") ? *composite : row;
}

double served_us(const json& row) { return served(row).at("time_us_median").get<double>(); }

// The kernel, and before it the composite that serves in its place.
std::string kernel_text(const json& row) {
  std::string kernel = fmt::format("{} split_k={} raster={}", row.at("config").get<std::string>(),
                                   row.at("split_k").get<int>(), row.at("raster").get<int>());
  const json& serving = served(row);
  if (&serving == &row) return kernel;
  return composite_text(serving.at("config").get<std::string>(),
                        serving.at("scratch_bytes").get<double>(),
                        row.at("time_us_median").get<double>(), kernel);
}

Workload workload_of(const json& row) {
  Workload workload;
  workload.problem = {parse_op(row.at("op").get<std::string>()), row.at("n").get<int>(),
                      row.at("k").get<int>(), row.at("group").get<int>(),
                      parse_dtype(row.at("dtype").get<std::string>())};
  workload.m = row.at("m").get<int>();
  return workload;
}

std::string text_of(const json& value) {
  return value.is_string() ? value.get<std::string>() : value.dump();
}

std::string serves_text(const json& row) {
  const json& end = row.at("m_hi");
  return interval_text(row.at("m_lo").get<int>(), end.is_null() ? kUnboundedM : end.get<int>());
}

// "1.03 ± 0.01": the ratio of medians, with half the spread of both sample sets.
std::string ratio_text(const json& row) {
  const double baseline = baseline_us(row);
  if (baseline == 0.0) return "";
  const double ratio = baseline / served_us(row);
  double spread = 0.0;
  const auto samples = served(row).at("time_us_samples").get<std::vector<double>>();
  if (!samples.empty()) spread += relative_spread(samples);
  for (const auto& [name, entry] : row.at("baselines").items()) {
    spread += relative_spread(entry.at("time_us_samples").get<std::vector<double>>());
  }
  return fmt::format("{:.2f} ± {:.2f}", ratio, 0.5 * spread * ratio);
}

}  // namespace

json calibration_json(const Calibration& calibration) {
  json curve = json::array();
  for (const ReadPoint& point : calibration.read_curve) {
    curve.push_back({{"bytes_per_sm", point.bytes_per_sm}, {"gbps", point.gbps}});
  }
  const auto known = [](double value) { return value > 0.0 ? json(value) : json(nullptr); };
  return {{"method", calibration.method},
          {"measured_at", calibration.measured_at},
          {"driver", calibration.driver},
          {"clock_mhz", known(calibration.clock_mhz)},
          {"copy_gbps", calibration.copy_gbps},
          {"read_gbps", calibration.read_gbps},
          {"read_curve", std::move(curve)},
          {"launch_us", calibration.launch_us},
          {"dependent_launch_us", known(calibration.dependent_launch_us)},
          {"mma_tflops", calibration.mma_tflops},
          {"mma_source", calibration.mma_source},
          {"mma_sync_tflops", calibration.mma_sync_tflops},
          {"reduce_us", calibration.reduce_us},
          {"reduce_sm_gbps", calibration.reduce_sm_gbps}};
}

json report_json(const RunInfo& run, const TuneResult& result) {
  json rows = json::array();
  for (const WorkloadResult& row : result.rows) rows.push_back(row_json(row));
  json chains = json::array();
  for (const Chain& chain : result.chains) {
    json names = json::array();
    for (const Workload& workload : chain.workloads) names.push_back(to_string(workload));
    chains.push_back({{"workloads", std::move(names)},
                      {"time_us_median", median(chain.time_us)},
                      {"time_us_samples", chain.time_us},
                      {"dependent_us_median", median(chain.dependent_us)},
                      {"dependent_us_samples", chain.dependent_us}});
  }
  json report = {{"schema", fmt::format("{}{}", kReportSchema, kReportVersion)},
                 {"environment", environment_json(run, result)},
                 {"rows", std::move(rows)}};
  add_fp16(report, fp16_intervals(result));
  if (!chains.empty()) report["chains"] = std::move(chains);
  if (result.calibration) report["calibration"] = calibration_json(*result.calibration);
  const ModelFits fits = result.fits();
  if (fits.all.trials > 0) report["model"] = fits_json(fits);
  return report;
}

void write_file(const std::string& path, std::string_view text) {
  const std::filesystem::path target(path);
  std::error_code ignored;
  if (target.has_parent_path()) std::filesystem::create_directories(target.parent_path(), ignored);
  const std::string temporary = fmt::format("{}.{}.tmp", path, ::getpid());
  {
    std::ofstream stream(temporary, std::ios::binary);
    stream << text;
    stream.flush();
    if (!stream) {
      std::remove(temporary.c_str());
      throw Error(ErrorCode::kEnvironment,
                  fmt::format("{} can't be written. Check the folder, its permissions and the free "
                              "space.",
                              path));
    }
  }
  std::error_code failed;
  std::filesystem::rename(temporary, target, failed);
  if (failed) {
    std::remove(temporary.c_str());
    throw Error(
        ErrorCode::kEnvironment,
        fmt::format("{} can't be replaced: {}. Check its permissions.", path, failed.message()));
  }
}

void write_report(const std::string& path, const json& report) {
  write_file(path, report.dump(1) + "\n");
  write_file(std::filesystem::path(path).replace_extension(".md").string(),
             markdown_summary(report));
}

namespace {

std::string summary_head(const json& environment) {
  std::string out =
      fmt::format("# w4tune report: {}\n\n", environment.at("gpu").get<std::string>());
  out +=
      fmt::format("{} · w4tune {} ({}) · driver {} · NVRTC {}\n\n", text_of(environment.at("date")),
                  text_of(environment.at("w4tune")), text_of(environment.at("commit")),
                  text_of(environment.at("driver")), text_of(environment.at("nvrtc")));
  const json rate = environment.value("mma_sync_tflops", json());
  const std::string by_mma_sync =
      rate.is_number() ? fmt::format("; {:.0f} by mma.sync alone", rate.get<double>()) : "";
  out += fmt::format(
      "Ceilings: {:.0f} GB/s, {:.0f} TFLOP/s ({}{}). Protocol: {}.\n\nTimes are medians in "
      "microseconds; "
      "`floor` is the larger of bytes moved once over the copy bandwidth and operations over the "
      "matrix "
      "rate; `ratio` is the baseline's time over ours (above 1 we are faster), with half the "
      "interquartile spreads.\n",
      environment.at("copy_gbps").get<double>(), environment.at("mma_tflops").get<double>(),
      text_of(environment.at("mma_source")), by_mma_sync, text_of(environment.at("protocol")));
  for (const json& line : environment.value("assumed", json::array())) {
    out += fmt::format("\n- assumed: {}", line.get<std::string>());
  }
  if (!environment.value("assumed", json::array()).empty()) out += "\n";
  return out;
}

constexpr const char* kLinesWords =
    "\n`read` is a kernel that only reads the weight and its scales, and `of read` our time over "
    "its; `chained` is our kernel when each launch may begin before the one before has ended "
    "(programmatic dependent launch), with its own ratio to the baseline.\n";

// The columns that bench adds, "" where the row has none.
std::string lines_cells(const json& row, double baseline) {
  if (!row.contains("read")) return " | | | |";
  const double read = row.at("read").at("time_us_median").get<double>();
  const double chained = row.at("dependent").at("time_us_median").get<double>();
  return fmt::format(" {:.2f} | {:.2f} | {:.2f} | {} |", read,
                     row.at("time_us_median").get<double>() / read, chained,
                     baseline > 0.0 ? fmt::format("{:.2f}", baseline / chained) : "");
}

std::string geometric_mean_line(std::string_view what, const std::vector<double>& ratios) {
  const auto slower =
      std::count_if(ratios.begin(), ratios.end(), [](double ratio) { return ratio < 1.0; });
  return fmt::format(
      "\nGeometric mean of {} over {} cells: {:.2f}. The baseline is faster in {}.\n", what,
      ratios.size(), geometric_mean(ratios), slower);
}

std::string fp16_section(const json& report) {
  if (report.at("fp16_summary").empty()) return {};
  std::string out =
      "\n## Where FP16 is faster\n\nBy how much longer our kernel takes; each interval is judged "
      "at "
      "the M it was tuned at.\n\n";
  for (const json& line : report.at("fp16_summary")) {
    out += fmt::format("- {}\n", line.get<std::string>());
  }
  return out;
}

// Of the run, then of each family.
std::string model_table(const json& report) {
  if (!report.contains("model")) return {};
  const json& model = report.at("model");
  std::string out = fmt::format(
      "\n## How well the cost model ranked\n\nWithin each workload, over the trials that worked; "
      "means over workloads, weighted by their trials. Recall: of the measured best {:g} %, the "
      "share that the model had among its best {:g} %.\n\n| family | workloads | trials | Spearman "
      "| recall |\n|---|---|---|---|---|\n",
      100.0 * model.at("best_share").get<double>(),
      100.0 * model.at("in_predicted_best_share").get<double>());
  const auto line = [&](std::string_view name, const json& fit) {
    const json& correlation = fit.at("spearman");
    out +=
        fmt::format("| {} | {} | {} | {} | {:.0f} % |\n", name, fit.at("workloads").get<int>(),
                    fit.at("trials").get<int>(),
                    correlation.is_null() ? "" : fmt::format("{:.2f}", correlation.get<double>()),
                    100.0 * fit.at("top_recall").get<double>());
  };
  line("all", model);
  for (const auto& [family, fit] : model.at("families").items()) line(family, fit);
  return out;
}

std::string chains_table(const json& report) {
  if (!report.contains("chains")) return {};
  std::string out =
      "\n## Chains\n\nMicroseconds a round of the layers, launched one after another; `chained` as "
      "above.\n\n| layers | time us | chained us | faster by |\n|---|---|---|---|\n";
  for (const json& chain : report.at("chains")) {
    const double plain = chain.at("time_us_median").get<double>();
    const double chained = chain.at("dependent_us_median").get<double>();
    std::string names;
    for (const json& name : chain.at("workloads")) {
      names += (names.empty() ? "" : ", ") + name.get<std::string>();
    }
    out +=
        fmt::format("| {} | {:.2f} | {:.2f} | {:.2f} |\n", names, plain, chained, plain / chained);
  }
  return out;
}

}  // namespace

std::string markdown_summary(const json& report) {
  std::string out = summary_head(report.at("environment"));
  const json& rows = report.at("rows");
  const bool lines =
      std::any_of(rows.begin(), rows.end(), [](const json& row) { return row.contains("read"); });
  if (lines) out += kLinesWords;
  Problem last;
  std::vector<double> ratios;
  std::vector<double> chained_ratios;
  for (const json& row : rows) {
    const Workload workload = workload_of(row);
    if (workload.problem != last) {
      const std::string note = baseline_note(workload.problem);
      out += fmt::format(
          "\n## {}\n\n{}| M | serves M | time us | floor us | of floor | baseline us | ratio | "
          "baseline is |{} MHz | kernel | provenance "
          "|\n|---|---|---|---|---|---|---|---|{}---|---|---|\n",
          to_string(workload.problem),
          note.empty() ? "" : fmt::format("The baseline is one {}.\n\n", note),
          lines ? " read us | of read | chained us | chained ratio |" : "",
          lines ? "---|---|---|---|" : "");
      last = workload.problem;
    }
    if (!row.contains("time_us_median")) {
      out += fmt::format("| {} | | untuned | | | | | |{} | | |\n", workload.m,
                         lines ? " | | | |" : "");
      continue;
    }
    const double time = served_us(row);
    const double baseline = baseline_us(row);
    if (baseline > 0.0) {
      ratios.push_back(baseline / time);
      if (row.contains("dependent")) {
        chained_ratios.push_back(baseline / row.at("dependent").at("time_us_median").get<double>());
      }
    }
    out += fmt::format("| {} | {} | {:.2f} | {:.2f} | {:.0f} % | {} | {} | {} |{} {} | {} | {} |\n",
                       workload.m, serves_text(row), time, row.at("floor_us").get<double>(),
                       100.0 * row.at("floor_us").get<double>() / time,
                       baseline > 0.0 ? fmt::format("{:.2f}", baseline) : "", ratio_text(row),
                       fp16_text(fp16_faster_by(time, baseline)),
                       lines ? lines_cells(row, baseline) : "",
                       row.at("clock_mhz_median").is_null()
                           ? ""
                           : fmt::format("{:.0f}", row.at("clock_mhz_median").get<double>()),
                       kernel_text(row), row.at("provenance").get<std::string>());
  }
  if (!ratios.empty()) out += geometric_mean_line("the ratios", ratios);
  if (!chained_ratios.empty()) out += geometric_mean_line("the chained ratios", chained_ratios);
  return out + fp16_section(report) + model_table(report) + chains_table(report);
}

}  // namespace w4tune

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <optional>

#include "gpu/device.h"
#include "templates/cost.h"
#include "tuner/compiler.h"
#include "tuner/measuring_process.h"
#include "tuner/ranking.h"
#include "tuner/tune.h"
#include "tuner/verify.h"
#include "w4tune/error.h"

namespace w4tune {
namespace {

// Candidates a workload's prediction may fall back to before it is left untuned.
constexpr std::size_t kTries = 64;

// The driver compiles their PTX first.
constexpr double kStepSeconds = 60.0;

// Runs the predicted kernels, without their cache hints, on the present GPU, in the measuring
// process: their architecture's PTX, compiled by its driver.
class DeviceCheck {
 public:
  explicit DeviceCheck(const TuneOptions& options)
      : options_(options),
        present_(query_device(options.ordinal)),
        ptx_(fmt::format("compute_{}", options.device.sm), options.device_dir, options.threads,
             nullptr),
        native_(arch_name(present_.sm), options.device_dir, 1, nullptr),
        measuring_({.program = options.measuring_program,
                    .begin = {.ordinal = options.ordinal,
                              .max_workspace_bytes = options.max_workspace_bytes,
                              .protocol = options.protocol,
                              .utility_image = {native_.utilities().cubin},
                              .toolkit_folder = {}},
                    .step_limit_s = kStepSeconds}) {
    if (present_.sm < options.device.sm) {
      throw Error(ErrorCode::kNoDevice,
                  fmt::format("--verify-on-device: {} can't run code for {}, which is newer. Leave "
                              "the option out.",
                              present_.name, options.device.name));
    }
  }

  // At the tuned M and one below it: the larger error, or how it failed there.
  Attempt<ErrorMetrics> check(const Candidate& candidate, const Workload& workload,
                              const Footprint& footprint, double expected_us) {
    if (problem_ != workload.problem) {
      const int max_m = tokens_of(options_.plan, workload.problem).back();
      constexpr std::size_t kWarm = 0;  // no L2 to flush: one copy of the weight
      measuring_.open({workload.problem, max_m, kWarm, false});
      problem_ = workload.problem;
    }
    const KernelConfig plain =
        find_family(candidate.config.family)->without_hints(candidate.config);
    const Compilation& ptx = ptx_.get(plain, workload.problem);
    const CompiledCandidate kernel{candidate, footprint, ptx.key, {ptx.cubin}};
    ErrorMetrics worst;
    for (const int m : {workload.m, std::max(1, workload.m - 1)}) {
      Attempt<ErrorMetrics> attempt = measuring_.check({kernel, m}, expected_us);
      const auto* error = std::get_if<ErrorMetrics>(&attempt);
      if (error == nullptr) return attempt;
      if (!(error->worst_ratio <= worst.worst_ratio)) worst = *error;
    }
    return worst;
  }

  [[nodiscard]] const DeviceInfo& present() const { return present_; }

 private:
  const TuneOptions& options_;
  DeviceInfo present_;
  Compiler ptx_;
  Compiler native_;
  MeasuringProcess measuring_;
  std::optional<Problem> problem_;  // that is open
};

class PredictedRun {
 public:
  PredictedRun(const TuneOptions& options, Store& store, TuneObserver& observer)
      : options_(options),
        store_(store),
        observer_(observer),
        compiler_(arch_name(options.device.sm), options.device_dir, options.threads, &store),
        run_(store.begin_run(describe_run(options, compiler_.source_hash()))) {}

  TuneResult run() {
    const Rates rates = rates_of(options_.device);
    result_.calibration = options_.device.calibration;
    result_.ceilings = result_.calibration
                           ? ceilings_of(*result_.calibration)
                           : Ceilings{rates.dram_gbps, rates.mma_tflops, "assumed", 0.0};
    observer_.on_ceilings(result_.ceilings);
    result_.mma_denormals = options_.device.mma_denormals;
    result_.assumed = describe(rates, options_.device);
    if (options_.verify_on_device) {
      observer_.on_phase("preparing the present GPU for verification");
      check_ = std::make_unique<DeviceCheck>(options_);
    }
    observer_.on_phase("ranking candidates by the cost model");
    const auto& workloads = options_.plan.workloads;
    const std::vector<Rankings> rankings =
        rank_all(workloads, options_.device, options_.max_workspace_bytes, options_.threads,
                 options_.families);
    for (std::size_t i = 0; i < workloads.size(); ++i) {
      const std::vector<Choice> choices = by_prediction(rankings[i]);
      if (choices.empty()) continue;
      compiler_.announce(candidate_at(rankings[i], choices[0]).config, workloads[i].problem);
    }
    for (std::size_t i = 0; i < workloads.size(); ++i) {
      if (options_.interrupted()) {
        result_.interrupted = true;
        break;
      }
      if (options_.budget_s > 0.0 && seconds_since_start() > options_.budget_s) {
        result_.rows.emplace_back();
        result_.rows.back().workload = workloads[i];
        observer_.on_result(result_.rows.back(), result_);
        continue;
      }
      choose(i, rankings[i]);
    }
    store_utilities();
    return std::move(result_);
  }

 private:
  void choose(std::size_t index, const Rankings& rankings) {
    const Workload& workload = options_.plan.workloads[index];
    const double floor =
        floor_us(workload, result_.ceilings.copy_gbps, result_.ceilings.mma_tflops);
    observer_.on_workload(index, options_.plan.workloads.size(), workload, floor);
    WorkloadResult row;
    row.workload = workload;
    const std::vector<Choice> choices = by_prediction(rankings);
    const std::size_t tries = std::min(kTries, choices.size());
    for (std::size_t i = 0; i < tries && !row.winner && !options_.interrupted(); ++i) {
      const Family& family = *rankings[choices[i].space].family;
      Trial trial;
      trial.workload = workload;
      trial.candidate = candidate_at(rankings, choices[i]);
      const Footprint footprint = family.footprint(trial.candidate.config, workload.problem);
      const Compilation& compilation = compiler_.get(trial.candidate.config, workload.problem);
      const double predicted = family.cost(trial.candidate, workload, options_.device).total_us;
      judge(trial, compilation, footprint, predicted);
      ++row.evaluated;
      if (trial.outcome == Outcome::kOk) {
        row.winner = winner(trial, compilation, footprint, predicted, floor);
        row.predicted_us = predicted;
        row.composite_left_out = "measured only, never predicted";
      } else {
        ++row.failed;
      }
      observer_.on_candidate(trial, row.evaluated, static_cast<int>(tries), predicted);
    }
    if (row.winner) store_.put_winners(run_, workload.problem, {*row.winner});
    if (!row.winner && options_.interrupted()) {
      result_.interrupted = true;
      return;
    }
    result_.rows.push_back(std::move(row));
    renew_intervals(result_.rows, store_, options_.device);
    observer_.on_result(result_.rows.back(), result_);
  }

  void judge(Trial& trial, const Compilation& compilation, const Footprint& footprint,
             double predicted_us) {
    if (!compilation.ok()) {
      trial.outcome = Outcome::kCompileError;
      trial.detail = compilation.log.substr(0, compilation.log.find('\n'));
      return;
    }
    if (compilation.spill_bytes > 0) {
      trial.outcome = Outcome::kResourceLimit;
      trial.detail = fmt::format("{} registers and {} bytes spilled", compilation.registers,
                                 compilation.spill_bytes);
      return;
    }
    trial.outcome = Outcome::kOk;
    if (!check_) return;
    const Attempt<ErrorMetrics> attempt =
        check_->check(trial.candidate, trial.workload, footprint, predicted_us);
    if (const auto* failure = std::get_if<Failure>(&attempt)) {
      // Refused by a driver that lives on: so it would be with all others.
      if (!failure->lost) throw Error(ErrorCode::kDevice, failure->detail);
      trial.outcome = failure->outcome;
      trial.detail = failure->detail;
      observer_.on_warning(fmt::format("{}: {} failed on {} ({}): passed over",
                                       to_string(trial.workload), to_string(trial.candidate),
                                       check_->present().name, failure->detail));
      return;
    }
    const auto& error = std::get<ErrorMetrics>(attempt);
    if (is_correct(error)) return;
    trial.outcome = Outcome::kWrongResult;
    trial.detail = fmt::format("error {:.2f} times the bound on {}", error.worst_ratio,
                               check_->present().name);
  }

  static Winner winner(const Trial& trial, const Compilation& compilation,
                       const Footprint& footprint, double predicted_us, double floor) {
    Winner winner;
    winner.problem = trial.workload.problem;
    winner.m = trial.workload.m;
    winner.provenance = Provenance::kPredicted;
    winner.candidate = trial.candidate;
    winner.footprint = footprint;
    winner.compilation_key = compilation.key;
    winner.registers = compilation.registers;
    winner.spill_bytes = compilation.spill_bytes;
    winner.time_us_median = predicted_us;
    winner.floor_us = floor;
    return winner;
  }

  void store_utilities() {
    if (std::any_of(result_.rows.begin(), result_.rows.end(),
                    [](const WorkloadResult& row) { return row.winner.has_value(); })) {
      store_.put_device_kernel(options_.device, "utility", compiler_.utilities());
    }
  }

  [[nodiscard]] double seconds_since_start() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  }

  const TuneOptions& options_;
  Store& store_;
  TuneObserver& observer_;
  Compiler compiler_;
  std::int64_t run_;
  std::unique_ptr<DeviceCheck> check_;
  TuneResult result_;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

}  // namespace

TuneResult tune_predicted(const TuneOptions& options, Store& store, TuneObserver& observer) {
  return PredictedRun(options, store, observer).run();
}

}  // namespace w4tune

#include <fmt/format.h>

#include <algorithm>
#include <chrono>

#include "gpu/device.h"
#include "templates/cost.h"
#include "tuner/compiler.h"
#include "tuner/gpu_session.h"
#include "tuner/ranking.h"
#include "tuner/tune.h"
#include "w4tune/error.h"

namespace w4tune {
namespace {

// Candidates a workload's prediction may fall back to before it is left untuned.
constexpr std::size_t kTries = 64;

// Runs the predicted kernels, without their cache hints, on the present GPU: their architecture's
// PTX, compiled by its driver.
class DeviceCheck {
 public:
  explicit DeviceCheck(const TuneOptions& options)
      : options_(options),
        present_(query_device(options.ordinal)),
        ptx_(fmt::format("compute_{}", options.device.sm), options.device_dir, options.threads,
             nullptr),
        native_(arch_name(present_.sm), options.device_dir, 1, nullptr),
        gpu_(options.ordinal, options.max_workspace_bytes, native_.utilities().cubin) {
    if (present_.sm < options.device.sm) {
      throw Error(ErrorCode::kNoDevice,
                  fmt::format("--verify-on-device: {} can't run code for {}, which is newer. Leave "
                              "the option out.",
                              present_.name, options.device.name));
    }
  }

  // Error at the tuned M and one below it, as a multiple of the bound.
  double worst_ratio(const Candidate& candidate, const Workload& workload,
                     const Footprint& footprint) {
    if (!operands_ || operands_->problem() != workload.problem) {
      verifier_.reset();
      const std::vector<int> tokens = tokens_of(options_.plan, workload.problem);
      Protocol warm = options_.protocol;
      warm.cold_factor = 0.0;
      operands_ =
          std::make_unique<Operands>(workload.problem, tokens.back(), present_.l2_bytes, warm);
      verifier_ = std::make_unique<Verifier>(gpu_.utilities(), *operands_, gpu_.stream());
    }
    const KernelConfig plain =
        find_family(candidate.config.family)->without_hints(candidate.config);
    const LoadedKernel& kernel = gpu_.load(ptx_.get(plain, workload.problem), footprint);
    double worst = 0.0;
    for (const int m : {workload.m, std::max(1, workload.m - 1)}) {
      worst = std::max(worst, gpu_.check(kernel, candidate, *operands_, *verifier_, m).worst_ratio);
    }
    return worst;
  }

  [[nodiscard]] const DeviceInfo& present() const { return present_; }

 private:
  const TuneOptions& options_;
  DeviceInfo present_;
  Compiler ptx_;
  Compiler native_;
  GpuSession gpu_;
  std::unique_ptr<Operands> operands_;
  std::unique_ptr<Verifier> verifier_;
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
      judge(trial, compilation, footprint);
      ++row.evaluated;
      const double predicted = family.cost(trial.candidate, workload, options_.device).total_us;
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

  void judge(Trial& trial, const Compilation& compilation, const Footprint& footprint) {
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
    const double ratio = check_->worst_ratio(trial.candidate, trial.workload, footprint);
    if (ratio <= 1.0) return;
    trial.outcome = Outcome::kWrongResult;
    trial.detail = fmt::format("error {:.2f} times the bound on {}", ratio, check_->present().name);
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

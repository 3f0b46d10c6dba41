#include "tuner/tune.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <ctime>

#include "core/stats.h"
#include "generated/version.h"
#include "gpu/cublaslt.h"
#include "gpu/device.h"
#include "gpu/shared_library.h"
#include "tuner/baseline.h"
#include "tuner/composite_run.h"
#include "tuner/gpu_evaluator.h"
#include "tuner/measuring_process.h"
#include "tuner/run_off.h"
#include "tuner/verify.h"
#include "w4tune/error.h"

namespace w4tune {
namespace {

using Clock = std::chrono::steady_clock;

// A composite this much slower than the best kernel in a first round is not measured further.
constexpr double kHopelessComposite = 1.1;
// Winners of the M before that are tried first.
constexpr std::size_t kSeeds = 6;
constexpr std::size_t kNewSeeds = 4;  // of one M, the fastest of its search
// Of the ranking, prepared ahead for workloads whose turn has not come.
constexpr std::size_t kCompileAhead = 24;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// Measures all workloads of a run, problem by problem.
class MeasuredRun {
 public:
  MeasuredRun(const TuneOptions& options, Store& store, TuneObserver& observer)
      : options_(options),
        store_(store),
        observer_(observer),
        compiler_(arch_name(options.device.sm), options.device_dir, options.threads, &store),
        utilities_(compiler_.utilities()),
        measuring_({.program = options.measuring_program,
                    .begin = {.ordinal = options.ordinal,
                              .max_workspace_bytes = options.max_workspace_bytes,
                              .protocol = options.protocol,
                              .utility_image = {utilities_.cubin},
                              .toolkit_folder = searched_toolkit_folder()},
                    .step_limit_s = options.patience_s}),
        run_(begin_run()),
        context_{options_, store, run_, compiler_, measuring_, observer} {}

  TuneResult run() {
    result_.mma_denormals = options_.device.mma_denormals;
    store_.update_probe(run_, result_.ceilings.copy_gbps, result_.ceilings.mma_tflops);
    observer_.on_ceilings(result_.ceilings);
    store_.put_device_kernel(options_.device, "utility", utilities_);
    observer_.on_phase("ranking candidates by the cost model");
    rankings_ = rank_all(options_.plan.workloads, options_.device, options_.max_workspace_bytes,
                         options_.threads, options_.families);
    compile_ahead();
    for (const Problem& problem : problems_of(options_.plan)) {
      if (result_.interrupted) break;
      tune_problem(problem);
    }
    return std::move(result_);
  }

 private:
  // The space of candidates depends on the probe, so it comes first.
  std::int64_t begin_run() {
    refuse_other_launches();
    std::optional<Calibration> calibration = usable_calibration(store_, options_.device);
    observer_.on_phase(calibration ? "starting to measure"
                                   : "probing: bandwidths, launches, matrix rate, reductions");
    Probed probed = measuring_.probe(!calibration);
    if (!calibration) {
      calibration = std::move(probed.calibration);
      store_.put_calibration(options_.device, *calibration);
    }
    options_.device.mma_denormals = probed.mma_denormals;
    options_.device.calibration = result_.calibration = std::move(calibration);
    result_.ceilings = ceilings_of(*result_.calibration);
    return store_.begin_run(describe_run(options_, compiler_.source_hash()));
  }

  // One cache has winners of one way to launch: the fastest of one are not those of the other.
  void refuse_other_launches() {
    const bool dependent = options_.protocol.dependent;
    if (dependent && options_.device.sm < 90) {
      throw Error(
          ErrorCode::kInvalidArgument,
          fmt::format("--dependent: {} has compute capability {}.{}, dependent launches need "
                      "9.0. Tune without it.",
                      options_.device.name, options_.device.sm / 10, options_.device.sm % 10));
    }
    for (const std::string& protocol : store_.winner_protocols(options_.device)) {
      const bool other = (protocol.find(kDependentText) != std::string::npos) != dependent;
      if (!other) continue;
      throw Error(
          ErrorCode::kInvalidArgument,
          fmt::format("the cache holds winners tuned for {} launches on {}, and this run is "
                      "for {} ones. Name another file by --db.",
                      dependent ? "plain" : "dependent", options_.device.name,
                      dependent ? "dependent" : "plain"));
    }
  }

  // All workloads' likeliest candidates, in the order their turn will come.
  void compile_ahead() {
    for (std::size_t i = 0; i < rankings_.size(); ++i) {
      if (finished(options_.plan.workloads[i])) continue;
      const Rankings& rankings = rankings_[i];
      std::vector<Choice> first =
          merge_rankings(contenders_of(rankings, options_.plan.workloads[i], options_.device),
                         Budget{}.least_share);
      first.resize(std::min(kCompileAhead, first.size()));
      for (const Choice& choice : first) {
        compiler_.announce(candidate_at(rankings, choice).config,
                           options_.plan.workloads[i].problem);
      }
    }
  }

  // Whether cuBLASLt is measured beside the kernels.
  [[nodiscard]] bool has_baseline() const { return options_.baseline && CublasLt::available(); }

  [[nodiscard]] bool finished(const Workload& workload) const {
    return store_.finished(run_, workload) &&
           (!has_baseline() ||
            store_.find_baseline(run_, workload, baseline_name(workload.problem)).has_value());
  }

  void tune_problem(const Problem& problem) {
    const std::vector<int> tokens = tokens_of(options_.plan, problem);
    const bool all_finished = std::all_of(tokens.begin(), tokens.end(), [&](int m) {
      return finished({problem, m});
    });
    if (!all_finished) {
      observer_.on_phase(fmt::format("preparing operands of {}", to_string(problem)));
      measuring_.open({problem, tokens.back(), options_.device.l2_bytes, has_baseline()});
    }
    seeds_.clear();
    for (std::size_t i = 0; i < options_.plan.workloads.size(); ++i) {
      const Workload& workload = options_.plan.workloads[i];
      if (workload.problem != problem) continue;
      if (options_.interrupted()) {
        result_.interrupted = true;
        return;
      }
      if (finished(workload)) {
        reuse(workload);
      } else if (out_of_time()) {
        WorkloadResult row;
        row.workload = workload;
        finish(std::move(row));
      } else {
        tune_workload(i);
      }
    }
  }

  void reuse(const Workload& workload) {
    WorkloadResult row;
    row.workload = workload;
    row.resumed = true;
    row.predictions = predictions_of(store_.trials(run_, workload), options_.device);
    row.winner = stored_winner(workload);
    row.baseline = store_.find_baseline(run_, workload, baseline_name(workload.problem));
    if (row.winner && !row.winner->composite) {
      row.composite_left_out = "not stored by the run that tuned it";
    }
    if (row.winner) seeds_.push_back(row.winner->candidate);
    finish(std::move(row));
  }

  [[nodiscard]] bool out_of_time() const {
    return options_.budget_s > 0.0 && seconds_since(start_) > options_.budget_s;
  }

  // Time this workload may take, its share of what is left of the budget.
  [[nodiscard]] double share_of_budget(std::size_t index) const {
    if (options_.budget_s <= 0.0) return 0.0;
    const auto left = static_cast<double>(options_.plan.workloads.size() - index);
    return std::max(0.0, options_.budget_s - seconds_since(start_)) / left;
  }

  void tune_workload(std::size_t index) {
    const Workload& workload = options_.plan.workloads[index];
    const Rankings& rankings = rankings_[index];
    const double floor =
        floor_us(workload, result_.ceilings.copy_gbps, result_.ceilings.mma_tflops);
    observer_.on_workload(index, options_.plan.workloads.size(), workload, floor);

    GpuEvaluator evaluator(context_, workload, rankings, floor);
    std::vector<Choice> seeds;
    const std::optional<Candidate> incumbent = incumbent_of(workload);
    if (incumbent) seeds = choices_near(rankings, *incumbent);
    for (const Candidate& seed : seeds_) {
      for (Choice& choice : choices_near(rankings, seed)) seeds.push_back(std::move(choice));
    }
    Budget budget;
    budget.evaluations = options_.evaluations;
    const double share = share_of_budget(index);
    const Clock::time_point begin = Clock::now();
    budget.stop = [&] {
      if (options_.interrupted()) return true;
      // At least one candidate is tried, however little time is left.
      return options_.budget_s > 0.0 && evaluator.measured() > 0 &&
             seconds_since(begin) > 0.8 * share;
    };
    budget.seed = options_.protocol.seed;
    find_strategy(options_.strategy)
        .search(contenders_of(rankings, workload, options_.device), seeds, budget, evaluator);

    WorkloadResult row;
    row.workload = workload;
    row.evaluated = evaluator.measured();
    row.reused = evaluator.reused();
    row.predictions = predictions_of(evaluator.ordered(), options_.device);
    if (!options_.interrupted()) decide(row, evaluator, incumbent, floor);
    row.failed = evaluator.failed();
    if (options_.interrupted() && !row.winner) {
      result_.interrupted = true;
      return;
    }
    finish(std::move(row));
  }

  // The final, interleaved with the baseline: winner, tie set and baseline of the row.
  void decide(WorkloadResult& row, GpuEvaluator& evaluator,
              const std::optional<Candidate>& incumbent, double floor) {
    std::vector<Trial> finalists;
    for (Trial& trial : evaluator.ordered()) {
      const bool enough = finalists.size() >= static_cast<std::size_t>(options_.protocol.finalists);
      if (enough && trial.candidate != incumbent) continue;
      if (survives(trial, evaluator)) finalists.push_back(std::move(trial));
    }
    const Contest contest = hold_contest(row, evaluator, finalists);
    if (!contest.baseline.time_us.empty()) {
      const Samples steady = only_steady(contest.baseline);
      row.baseline = Baseline{baseline_name(row.workload.problem), contest.baseline_detail,
                              steady.time_us, steady.clock_mhz};
      store_.put_baseline(run_, row.workload, *row.baseline);
    }
    if (finalists.empty()) return;
    crown(row, finalists, contest.kernels, incumbent, floor);
    if (row.composite_left_out.empty()) judge_composite(row, contest.composite);
    store_.put_winners(run_, row.workload.problem, {*row.winner});
  }

  // Samples of the finalists, of the composite (without one the row says why) and of the baseline.
  // What hangs or crashes is dropped, and the rest meets again.
  Contest hold_contest(WorkloadResult& row, GpuEvaluator& evaluator,
                       std::vector<Trial>& finalists) {
    ContestRequest request;
    request.m = row.workload.m;
    request.baseline = has_baseline();
    for (const Trial& trial : finalists) {
      request.kernels.push_back({evaluator.compiled(trial.candidate), trial.time_us_median()});
    }
    if (!finalists.empty()) {
      SlicePlan plan = plan_composite(row.workload, options_);
      row.composite_left_out = std::move(plan.left_out);
      request.slice_rows = std::move(plan.slice_rows);
      request.composite_limit_us = kHopelessComposite * finalists.front().time_us_median();
      request.composite_m = ragged_tokens(row.workload);
      request.composite_m.push_back(row.workload.m);
    }
    while (true) {
      Attempt<Contest> attempt = measuring_.contest(request, evaluator.expected_us());
      if (auto* contest = std::get_if<Contest>(&attempt)) {
        if (!request.slice_rows.empty()) row.composite_left_out = contest->composite.left_out;
        if (!contest->composite.warning.empty()) observer_.on_warning(contest->composite.warning);
        return std::move(*contest);
      }
      const Failure& failure = std::get<Failure>(attempt);
      if (failure.step >= 0) {
        evaluator.fail(finalists.at(static_cast<std::size_t>(failure.step)).candidate, failure);
        finalists.erase(finalists.begin() + failure.step);
        request.kernels.erase(request.kernels.begin() + failure.step);
      } else if (failure.step == kCompositeStep && !request.slice_rows.empty()) {
        request.slice_rows.clear();
        row.composite_left_out = "it failed: " + failure.detail;
        observer_.on_warning(fmt::format("{}: dequant_cublas failed ({}): passed over",
                                         to_string(row.workload), failure.detail));
      } else {
        throw Error(ErrorCode::kDevice, fmt::format("{}: the final run failed: {}",
                                                    to_string(row.workload), failure.detail));
      }
    }
  }

  // Stored beside the winner where it is faster by more than what could not be told apart.
  static void judge_composite(WorkloadResult& row, const Contest::Composite& composite) {
    const double time_us = median(composite.samples.time_us);
    if (!beats(time_us, row.winner->time_us_median)) {
      row.composite_left_out = fmt::format("not faster: {:.2f} us", time_us);
      return;
    }
    row.winner->composite = {.slice_rows = composite.slice_rows,
                             .scratch_bytes = composite.scratch_bytes,
                             .time_us_median = time_us,
                             .time_us = composite.samples.time_us,
                             .error_worst_ratio = composite.error.worst_ratio};
  }

  // The ends of the interval that a winner of this workload will serve, but for its own M.
  [[nodiscard]] std::vector<int> ragged_tokens(const Workload& workload) const {
    int below = 0;
    for (const int other : tokens_of(options_.plan, workload.problem)) {
      if (other < workload.m) below = other;
    }
    std::vector<int> tokens;
    for (const int ragged : {workload.m - 1, below + 1}) {
      if (ragged > below && ragged < workload.m) tokens.push_back(ragged);
    }
    return tokens;
  }

  // A winner serves every M of its interval: it must be right at the ends of it too.
  bool survives(const Trial& trial, GpuEvaluator& evaluator) {
    const int m = trial.workload.m;
    for (const int ragged : ragged_tokens(trial.workload)) {
      const Attempt<ErrorMetrics> attempt =
          measuring_.check({evaluator.compiled(trial.candidate), ragged}, evaluator.expected_us());
      if (const auto* failure = std::get_if<Failure>(&attempt)) {
        evaluator.fail(trial.candidate, *failure);
        return false;
      }
      const auto& error = std::get<ErrorMetrics>(attempt);
      if (is_correct(error)) continue;
      observer_.on_warning(
          fmt::format("{} is right at M = {} and wrong at M = {} (error {:.2f} times "
                      "the bound): passed over",
                      to_string(trial.candidate), m, ragged, error.worst_ratio));
      return false;
    }
    return true;
  }

  // What the cache serves of a workload already.
  [[nodiscard]] std::optional<Winner> stored_winner(const Workload& workload) const {
    for (Winner& winner : store_.winners(options_.device)) {
      if (Workload{winner.problem, winner.m} == workload) return std::move(winner);
    }
    return std::nullopt;
  }
  // The same, where it was measured.
  [[nodiscard]] std::optional<Candidate> incumbent_of(const Workload& workload) const {
    const std::optional<Winner> winner = stored_winner(workload);
    if (!winner || winner->provenance != Provenance::kMeasured) return std::nullopt;
    return winner->candidate;
  }

  [[nodiscard]] Verdict judge(const Problem& problem, const std::vector<Trial>& trials,
                              const std::vector<Samples>& samples,
                              const std::optional<Candidate>& incumbent) {
    std::vector<Finalist> finalists;
    for (std::size_t i = 0; i < trials.size(); ++i) {
      const Candidate& candidate = trials[i].candidate;
      const Family* family = find_family(candidate.config.family);
      finalists.push_back({.text = to_string(candidate),
                           .incumbent = candidate == incumbent,
                           .smem_bytes = family->footprint(candidate.config, problem).smem_bytes,
                           .registers = compiler_.get(candidate.config, problem).registers,
                           .samples = samples[i]});
    }
    return w4tune::decide(finalists);
  }

  void crown(WorkloadResult& row, const std::vector<Trial>& finalists,
             const std::vector<Samples>& samples, const std::optional<Candidate>& incumbent,
             double floor) {
    const Verdict verdict = judge(row.workload.problem, finalists, samples, incumbent);
    const std::size_t best = verdict.winner;
    if (throttled_too_often(samples[best])) {
      observer_.on_warning(
          fmt::format("{}: in more than a quarter of the final samples the clock was over 5 % "
                      "below its median. "
                      "See what else uses this GPU or heats it",
                      to_string(row.workload)));
    }
    const Samples steady = only_steady(samples[best]);
    const Trial& trial = finalists[best];
    const Family* family = find_family(trial.candidate.config.family);
    const Compilation& compilation = compiler_.get(trial.candidate.config, row.workload.problem);
    Winner winner;
    winner.problem = row.workload.problem;
    winner.m = row.workload.m;
    winner.provenance = Provenance::kMeasured;
    winner.candidate = trial.candidate;
    winner.footprint = family->footprint(trial.candidate.config, row.workload.problem);
    winner.compilation_key = compilation.key;
    winner.registers = compilation.registers;
    winner.spill_bytes = compilation.spill_bytes;
    winner.time_us = steady.time_us;
    winner.clock_mhz = steady.clock_mhz;
    winner.time_us_median = median(winner.time_us);
    winner.error = trial.error;
    winner.floor_us = floor;
    if (row.baseline) winner.baseline_us = median(row.baseline->time_us);
    for (const std::size_t i : verdict.tied) winner.tie_set.push_back(finalists[i].candidate);
    for (std::size_t i = 0; i < std::min(kNewSeeds, finalists.size()); ++i) {
      if (seeds_.size() >= kSeeds) seeds_.erase(seeds_.begin());
      seeds_.push_back(finalists[i].candidate);
    }
    row.predicted_us = family->cost(trial.candidate, row.workload, options_.device).total_us;
    row.winner = std::move(winner);
  }

  void finish(WorkloadResult row) {
    result_.rows.push_back(std::move(row));
    renew_intervals(result_.rows, store_, options_.device);
    observer_.on_result(result_.rows.back(), result_);
  }

  TuneOptions options_;  // with what was probed of the device
  Store& store_;
  TuneObserver& observer_;
  Compiler compiler_;
  Compilation utilities_;
  MeasuringProcess measuring_;
  TuneResult result_;
  std::int64_t run_;
  MeasuringContext context_;
  std::vector<Rankings> rankings_;  // by workload
  std::vector<Candidate> seeds_;    // what won at the M before
  Clock::time_point start_ = Clock::now();
};

}  // namespace

int TuneResult::untuned() const {
  return static_cast<int>(std::count_if(rows.begin(), rows.end(),
                                        [](const WorkloadResult& row) { return !row.winner; }));
}

ModelFits TuneResult::fits() const {
  std::vector<std::vector<Prediction>> workloads;
  workloads.reserve(rows.size());
  for (const WorkloadResult& row : rows) workloads.push_back(row.predictions);
  return model_fits(workloads);
}

std::string describe_driver() {
  if (device_count() == 0) return "none";
  return fmt::format("{} (CUDA {})", driver_release(), driver_version());
}

std::string timestamp_now() {
  return fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", fmt::gmtime(std::time(nullptr)));
}

RunInfo describe_run(const TuneOptions& options, const std::string& source_hash) {
  RunInfo info;
  info.device = options.device;
  info.driver = describe_driver();
  info.nvrtc = Nvrtc::get().version();
  info.version = kVersion;
  info.commit = kCommit;
  info.source_hash = source_hash;
  info.protocol = options.protocol.text();
  info.protocol_hash = options.protocol.hash();
  info.seed = options.protocol.seed;
  info.started_at = timestamp_now();
  return info;
}

void renew_intervals(std::vector<WorkloadResult>& rows, const Store& store,
                     const DeviceInfo& device) {
  const std::vector<Winner> winners = store.winners(device);
  for (WorkloadResult& row : rows) {
    for (const Winner& winner : winners) {
      if (!row.winner || Workload{winner.problem, winner.m} != row.workload) continue;
      row.winner->m_lo = winner.m_lo;
      row.winner->m_hi = winner.m_hi;
    }
  }
}

TuneResult tune_measured(const TuneOptions& options, Store& store, TuneObserver& observer) {
  return MeasuredRun(options, store, observer).run();
}

}  // namespace w4tune

#include "tuner/gpu_evaluator.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/stats.h"
#include "w4tune/error.h"

namespace w4tune {
namespace {

// A candidate this much slower than the best is not sampled again.
constexpr double kHopeless = 2.0;

std::string first_error_line(const std::string& log) {
  const auto at = log.find("error");
  const auto begin = at == std::string::npos ? 0 : log.rfind('\n', at) + 1;
  return log.substr(begin, log.find('\n', begin) - begin);
}

}  // namespace

GpuEvaluator::GpuEvaluator(const MeasuringContext& context, const Workload& workload,
                           const Rankings& rankings, const Operands& operands,
                           const Verifier& verifier)
    : context_(context),
      workload_(workload),
      rankings_(rankings),
      operands_(operands),
      verifier_(verifier) {
  for (Trial& trial : context.store.trials(context.run, workload)) {
    std::string text = to_string(trial.candidate);
    known_.emplace(std::move(text), std::move(trial));
  }
}

void GpuEvaluator::announce(std::span<const Choice> choices) {
  // Urgent jobs go to the front of the queue: last first keeps their order.
  for (std::size_t i = choices.size(); i-- > 0;) {
    const Candidate candidate = candidate_at(rankings_, choices[i]);
    if (known_.count(to_string(candidate)) > 0) continue;
    context_.compiler.announce(candidate.config, workload_.problem, true);
  }
}

double GpuEvaluator::evaluate(const Choice& choice) {
  const Candidate candidate = candidate_at(rankings_, choice);
  const auto known = known_.find(to_string(candidate));
  Trial trial;
  if (known != known_.end()) {
    trial = known->second;
    ++reused_;
  } else {
    trial = run(candidate);
    context_.store.put_trial(context_.run, trial);
    ++measured_;
  }
  double cost = kFailed;
  if (trial.outcome == Outcome::kOk) {
    cost = trial.time_us_median();
    best_us_ = std::min(best_us_, cost);
  } else {
    ++failed_;
  }
  context_.observer.on_candidate(trial, measured_ + reused_, context_.options.evaluations,
                                 best_us_);
  trials_.push_back(std::move(trial));
  return cost;
}

Trial GpuEvaluator::run(const Candidate& candidate) {
  Trial trial;
  trial.workload = workload_;
  trial.candidate = candidate;
  const Compilation& compilation = context_.compiler.get(candidate.config, workload_.problem);
  trial.compilation_key = compilation.key;
  if (!compilation.ok()) {
    trial.outcome = Outcome::kCompileError;
    trial.detail = first_error_line(compilation.log);
    return trial;
  }
  if (compilation.spill_bytes > 0) {
    trial.outcome = Outcome::kResourceLimit;
    trial.detail = fmt::format("{} registers and {} bytes spilled", compilation.registers,
                               compilation.spill_bytes);
    return trial;
  }
  try {
    const LoadedKernel& loaded = kernel(candidate);
    trial.error = context_.gpu.check(loaded, candidate, operands_, verifier_, workload_.m);
    if (!is_correct(trial.error)) {
      trial.outcome = Outcome::kWrongResult;
      trial.detail = fmt::format("error {:.2f} times the bound", trial.error.worst_ratio);
      return trial;
    }
    measure(trial);
    trial.outcome = Outcome::kOk;
  } catch (const Error& error) {
    if (error.code() != ErrorCode::kDevice) throw;
    trial.outcome = Outcome::kLaunchError;
    trial.detail = error.what();
    // Recorded first: if the GPU is gone for this process, the next run passes over the candidate.
    context_.store.put_trial(context_.run, trial);
    try {
      context_.gpu.stream().synchronize();
    } catch (const Error&) {
      throw Error(
          ErrorCode::kDevice,
          fmt::format("the GPU stopped working for this process after {}: {}. The candidate "
                      "is recorded and will be passed over: run the same command again.",
                      to_string(candidate), error.what()));
    }
  }
  return trial;
}

const LoadedKernel& GpuEvaluator::kernel(const Candidate& candidate) {
  const Compilation& compilation = context_.compiler.get(candidate.config, workload_.problem);
  const Family& family = *find_family(candidate.config.family);
  return context_.gpu.load(compilation, family.footprint(candidate.config, workload_.problem));
}

std::unique_ptr<MeasuredGraph> GpuEvaluator::graph(const Candidate& candidate, double estimate_us) {
  const LoadedKernel& loaded = kernel(candidate);
  const auto launch_on = [this, &loaded, schedule = candidate.schedule](CUstream stream, int copy) {
    context_.gpu.launch_gemm(loaded, workload_.problem, schedule, operands_.args(workload_.m, copy),
                             stream, context_.options.protocol.dependent);
  };
  return std::make_unique<MeasuredGraph>(context_.gpu.stream(), context_.gpu.clock(),
                                         context_.options.protocol, operands_.copies(), estimate_us,
                                         launch_on);
}

void GpuEvaluator::measure(Trial& trial) {
  const Family& family = *find_family(trial.candidate.config.family);
  const double predicted =
      family.cost(trial.candidate, workload_, context_.options.device).total_us;
  const auto measured = graph(trial.candidate, predicted);
  measured->sample();  // uploads the graph, warms up
  for (int i = 0; i < context_.options.protocol.search_samples; ++i) {
    const MeasuredGraph::Sample sample = measured->sample();
    trial.time_us.push_back(sample.time_us);
    trial.clock_mhz.push_back(sample.clock_mhz);
    if (sample.time_us > kHopeless * best_us_) break;
  }
}

std::vector<Trial> GpuEvaluator::ordered() const {
  std::vector<Trial> good;
  std::copy_if(trials_.begin(), trials_.end(), std::back_inserter(good),
               [](const Trial& trial) { return trial.outcome == Outcome::kOk; });
  std::stable_sort(good.begin(), good.end(), [](const Trial& a, const Trial& b) {
    return a.time_us_median() < b.time_us_median();
  });
  return good;
}

}  // namespace w4tune

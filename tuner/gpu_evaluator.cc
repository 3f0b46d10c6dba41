#include "tuner/gpu_evaluator.h"

#include <fmt/format.h>

#include <algorithm>

#include "tuner/verify.h"

namespace w4tune {
namespace {

std::string first_error_line(const std::string& log) {
  const auto at = log.find("error");
  const auto begin = at == std::string::npos ? 0 : log.rfind('\n', at) + 1;
  return log.substr(begin, log.find('\n', begin) - begin);
}

}  // namespace

GpuEvaluator::GpuEvaluator(const MeasuringContext& context, const Workload& workload,
                           const Rankings& rankings, double floor_us)
    : context_(context), workload_(workload), rankings_(rankings), floor_us_(floor_us) {
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
  measure(trial);
  return trial;
}

void GpuEvaluator::measure(Trial& trial) {
  const Family& family = *find_family(trial.candidate.config.family);
  MeasureRequest request;
  request.kernel = compiled(trial.candidate);
  request.m = workload_.m;
  request.estimate_us = family.cost(trial.candidate, workload_, context_.options.device).total_us;
  request.best_us = best_us_;
  Attempt<Measurement> attempt = context_.measuring.measure(request, expected_us());
  if (const auto* failure = std::get_if<Failure>(&attempt)) {
    trial.outcome = failure->outcome;
    trial.detail = failure->detail;
    if (failure->lost) warn_of(trial, *failure);
    return;
  }
  auto& measurement = std::get<Measurement>(attempt);
  trial.error = measurement.error;
  if (!is_correct(trial.error)) {
    trial.outcome = Outcome::kWrongResult;
    trial.detail = fmt::format("error {:.2f} times the bound", trial.error.worst_ratio);
    return;
  }
  trial.outcome = Outcome::kOk;
  trial.time_us = std::move(measurement.samples.time_us);
  trial.clock_mhz = std::move(measurement.samples.clock_mhz);
}

void GpuEvaluator::warn_of(const Trial& trial, const Failure& failure) const {
  const char* what = failure.outcome == Outcome::kTimeout ? "hung"
                     : failure.lost                       ? "crashed"
                                                          : "failed";
  context_.observer.on_warning(
      fmt::format("{}: {} {} ({}). It is recorded and will not be run again.", to_string(workload_),
                  to_string(trial.candidate), what, failure.detail));
}

void GpuEvaluator::fail(const Candidate& candidate, const Failure& failure) {
  for (Trial& trial : trials_) {
    if (trial.candidate != candidate) continue;
    trial.outcome = failure.outcome;
    trial.detail = failure.detail;
    context_.store.put_trial(context_.run, trial);
    warn_of(trial, failure);
    ++failed_;
  }
}

double GpuEvaluator::expected_us() const { return best_us_ < kFailed ? best_us_ : floor_us_; }

CompiledCandidate GpuEvaluator::compiled(const Candidate& candidate) {
  const Compilation& compilation = context_.compiler.get(candidate.config, workload_.problem);
  const Family& family = *find_family(candidate.config.family);
  return {candidate,
          family.footprint(candidate.config, workload_.problem),
          compilation.key,
          {compilation.cubin}};
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

// GpuEvaluator: compiles the candidates of one workload and has them verified and measured on the
// GPU, by the measuring process.
#pragma once

#include <map>
#include <vector>

#include "cache/store.h"
#include "search/strategy.h"
#include "tuner/compiler.h"
#include "tuner/measuring_process.h"
#include "tuner/options.h"
#include "tuner/ranking.h"

namespace w4tune {

// The parts of a run that candidates need; they outlive the evaluator. `measuring` has the
// workload's problem open.
struct MeasuringContext {
  const TuneOptions& options;
  Store& store;
  std::int64_t run;
  Compiler& compiler;
  MeasuringProcess& measuring;
  TuneObserver& observer;
};

class GpuEvaluator final : public Evaluator {
 public:
  GpuEvaluator(const MeasuringContext& context, const Workload& workload, const Rankings& rankings,
               double floor_us);

  void announce(std::span<const Choice> choices) override;
  double evaluate(const Choice& choice) override;

  // Trials that worked, fastest first.
  [[nodiscard]] std::vector<Trial> ordered() const;

  [[nodiscard]] int measured() const { return measured_; }
  [[nodiscard]] int failed() const { return failed_; }
  [[nodiscard]] int reused() const { return reused_; }

  // What the measuring process needs of a candidate that compiles.
  CompiledCandidate compiled(const Candidate& candidate);

  // A launch takes no less, as far as it is known.
  [[nodiscard]] double expected_us() const;

  // Records that a candidate that worked has failed since: it is no longer one of ordered().
  void fail(const Candidate& candidate, const Failure& failure);

 private:
  [[nodiscard]] Trial run(const Candidate& candidate);
  void measure(Trial& trial);
  void warn_of(const Trial& trial, const Failure& failure) const;

  const MeasuringContext& context_;
  Workload workload_;
  const Rankings& rankings_;
  double floor_us_;
  std::map<std::string, Trial> known_;  // by candidate text: of earlier runs
  std::vector<Trial> trials_;
  double best_us_ = kFailed;
  int measured_ = 0;
  int failed_ = 0;
  int reused_ = 0;
};

}  // namespace w4tune

// GpuEvaluator: compiles, verifies and measures the candidates of one workload on the GPU.
#pragma once

#include <map>
#include <vector>

#include "cache/store.h"
#include "search/strategy.h"
#include "tuner/compiler.h"
#include "tuner/gpu_session.h"
#include "tuner/measure.h"
#include "tuner/options.h"
#include "tuner/ranking.h"

namespace w4tune {

// The parts of a run that candidates need; they outlive the evaluator.
struct MeasuringContext {
  const TuneOptions& options;
  Store& store;
  std::int64_t run;
  Compiler& compiler;
  GpuSession& gpu;
  TuneObserver& observer;
};

class GpuEvaluator final : public Evaluator {
 public:
  GpuEvaluator(const MeasuringContext& context, const Workload& workload, const Rankings& rankings,
               const Operands& operands, const Verifier& verifier);

  void announce(std::span<const Choice> choices) override;
  double evaluate(const Choice& choice) override;

  // Trials that worked, fastest first.
  [[nodiscard]] std::vector<Trial> ordered() const;

  [[nodiscard]] int measured() const { return measured_; }
  [[nodiscard]] int failed() const { return failed_; }
  [[nodiscard]] int reused() const { return reused_; }

  // A graph of launches of a candidate that works.
  std::unique_ptr<MeasuredGraph> graph(const Candidate& candidate, double estimate_us);
  const LoadedKernel& kernel(const Candidate& candidate);

 private:
  [[nodiscard]] Trial run(const Candidate& candidate);
  void measure(Trial& trial);

  const MeasuringContext& context_;
  Workload workload_;
  const Rankings& rankings_;
  const Operands& operands_;
  const Verifier& verifier_;
  std::map<std::string, Trial> known_;  // by candidate text: of earlier runs
  std::vector<Trial> trials_;
  double best_us_ = kFailed;
  int measured_ = 0;
  int failed_ = 0;
  int reused_ = 0;
};

}  // namespace w4tune

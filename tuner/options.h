// What one tuning run is asked to do, who watches it, and what came out.
#pragma once

#include <cstddef>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "cache/store.h"
#include "core/device_info.h"
#include "core/trial.h"
#include "core/winner.h"
#include "tuner/model_fit.h"
#include "tuner/plan.h"
#include "tuner/probe.h"
#include "tuner/protocol.h"

namespace w4tune {

struct TuneOptions {
  Plan plan;
  DeviceInfo device;                  // the GPU the kernels are for
  int ordinal = 0;                    // of the GPU that measures
  int evaluations = 80;               // candidates measured for each workload
  std::vector<std::string> families;  // that compete; empty: all
  std::string strategy = "ranked";    // of search/strategy.h
  double budget_s = 0.0;              // wall-clock for the run; 0: no limit
  // Of a split's partials, and of a composite's scratch.
  std::size_t max_workspace_bytes = std::size_t{64} << 20;
  int threads = 1;                // that compile
  std::string device_dir;         // device sources read from here instead of the embedded ones
  bool baseline = true;           // measure cuBLASLt beside every workload
  bool verify_on_device = false;  // predicted kernels are run on the present GPU
  // The executable of w4tune, which measures as a process of its own. Whoever measures names it: a
  // program that does not know the command would run its own course instead.
  std::string measuring_program;
  // A candidate that gives no sign of life for so long hangs; a slow one is given more.
  double patience_s = 10.0;
  Protocol protocol;
  // Asked between candidates; true stops cleanly, keeping everything.
  std::function<bool()> interrupted = [] { return false; };
};

// What bench measures beside a winner, interleaved with it; samples in microseconds a launch.
struct Lines {
  std::vector<double> dependent_us;       // the winner, each launch allowed to begin early (PDL)
  std::vector<double> read_us;            // a kernel that only reads the weight and its scales
  std::vector<double> dependent_read_us;  // the same, allowed to begin early
};

// One workload's outcome: a row of the report.
struct WorkloadResult {
  Workload workload;
  std::optional<Winner> winner;         // none: untuned
  std::optional<Baseline> baseline;     // none: not measured
  double predicted_us = 0.0;            // the cost model's word for the winner
  std::string composite_left_out;       // why the winner has no composite; "" where it has
  int evaluated = 0;                    // candidates measured in this run
  int failed = 0;                       // candidates that did not work
  int reused = 0;                       // candidates known from an earlier run
  bool resumed = false;                 // taken from the cache as a whole
  std::string by;                       // which GPU of several tuned it: "gpu1"
  std::optional<Lines> lines;           // from bench alone
  std::vector<Prediction> predictions;  // of all trials that worked, also of earlier runs
};

// Layers launched one after another, as a model does; samples in microseconds a round of them all.
struct Chain {
  std::vector<Workload> workloads;
  std::vector<double> time_us;       // each launch waits for the one before
  std::vector<double> dependent_us;  // each may begin early
};

struct TuneResult {
  Ceilings ceilings;  // measured, or the model's assumptions for predicted rows
  std::optional<Calibration> calibration;  // what the model's rates come from; empty: assumed
  // Whether the tensor cores take FP16 denormals as they are; empty where it was not probed.
  std::optional<bool> mma_denormals;
  std::vector<std::string> assumed;  // what predicted times rest on; empty for measured ones
  std::vector<WorkloadResult> rows;
  std::vector<Chain> chains;  // from bench alone
  bool interrupted = false;

  [[nodiscard]] int untuned() const;
  // How well the model had ranked the trials of all rows.
  [[nodiscard]] ModelFits fits() const;
};

// Watches a run; every call comes from the thread that runs it.
class TuneObserver {
 public:
  virtual ~TuneObserver() = default;
  // Something that takes longer than a moment begins: "ranking candidates".
  virtual void on_phase(const std::string& what) = 0;
  virtual void on_ceilings(const Ceilings& ceilings) = 0;
  virtual void on_workload(std::size_t index, std::size_t total, const Workload& workload,
                           double floor_us) = 0;
  // After each candidate; best is kFailed-like infinity until one works.
  virtual void on_candidate(const Trial& trial, int done, int planned, double best_us) = 0;
  virtual void on_result(const WorkloadResult& result, const TuneResult& so_far) = 0;
  virtual void on_warning(const std::string& message) = 0;
};

}  // namespace w4tune

// The two ways to tune: measuring on the GPU that is there, and predicting for one that is not.
#pragma once

#include "cache/store.h"
#include "tuner/options.h"

namespace w4tune {

// Identity of a run as the cache stores it; `source_hash` and the tool versions are filled in.
RunInfo describe_run(const TuneOptions& options, const std::string& source_hash);

// Release of the present GPU's driver, "580.95.05 (CUDA 13.0)"; "none" without a GPU.
std::string describe_driver();

// The time now, UTC, as "2026-11-22T14:00:00Z".
std::string timestamp_now();

// Gives the rows' winners the intervals of M that the store has them serve by now: every winner
// stored divides the Ms of its problem anew, beside what earlier runs left.
void renew_intervals(std::vector<WorkloadResult>& rows, const Store& store,
                     const DeviceInfo& device);

// Tunes every workload of the plan on the present GPU `options.ordinal`, which must be what
// `options.device` describes. Every trial, winner and baseline is stored as soon as it is known;
// what an earlier run with the same sources and protocol stored is not measured again.
TuneResult tune_measured(const TuneOptions& options, Store& store, TuneObserver& observer);

// Ranks by the cost model for `options.device`, compiles the best candidate of each workload that
// fits without spills, and stores it as predicted. Needs no GPU, unless options.verify_on_device
// asks to run the kernels, compiled to PTX, on the GPU that is there: a wrong one is passed over.
TuneResult tune_predicted(const TuneOptions& options, Store& store, TuneObserver& observer);

}  // namespace w4tune

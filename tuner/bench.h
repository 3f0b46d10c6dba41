// Bench: the winners of a cache file measured again, beside the baseline, on the GPU that is there.
#pragma once

#include <string>
#include <vector>

#include "tuner/options.h"

namespace w4tune {

// Measures every winner that `wanted` accepts, interleaved with cuBLASLt (where it is found and
// options.baseline), with a kernel that only reads the weight, and with both as dependent launches;
// then every chain, each of its workloads by the winner tuned at that M (Error{kNotFound} where
// there is none). Layers of a chain have operands of their own: what is measured is the order of
// the launches, not the data between them. Reads the file only; needs no NVRTC. Uses of `options`:
// ordinal, device, protocol, baseline, max_workspace_bytes, interrupted. Throws Error{kNotFound}
// when the file has no winner for the device.
TuneResult bench_winners(const std::string& path, const TuneOptions& options,
                         const std::function<bool(const Winner&)>& wanted,
                         const std::vector<std::vector<Workload>>& chains, TuneObserver& observer);

}  // namespace w4tune

// Default kernels: one small set that serves every N, K and M on GPUs that have no rows of their
// own. Not tuned: chosen to be right everywhere and never absurd.
#pragma once

#include <functional>
#include <string>

namespace w4tune {

struct DefaultsSummary {
  int architectures = 0;
  int kernels = 0;
};

// Compiles the set for sm_80, whose code runs on sm_86 and sm_89 too, and for sm_90: both ops, both
// dtypes, groups of 32, 64, 128 and one scale for each output. Writes it as one read-only file that
// replaces `path` as a whole, to be opened as OpenOptions::defaults_path. `progress` is told what
// has been compiled, "sm_80: 12 of 32". Throws Error{kEnvironment} without NVRTC, and as Store.
DefaultsSummary write_defaults(const std::string& path, int threads,
                               const std::function<void(const std::string&)>& progress);

}  // namespace w4tune

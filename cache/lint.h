// Lint: what is wrong, old or useless in a cache file, as far as the file itself can tell. Measures
// nothing and changes nothing.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "cache/store.h"

namespace w4tune {

enum class LintKind : std::uint8_t {
  kHidden,       // a predicted row at an M that has a measured one
  kNeverChosen,  // a row without an interval of M, or with one that another row serves as well
  kGap,          // M that no row of a problem serves
  kFasterTrial,  // a stored trial of the same workload is faster
  kFasterRow,    // a row of a larger M is faster, and would serve this one's interval as well
  kOtherSource,  // made from device sources that are not this tool's
  kOtherDriver,  // measured with another driver
  kNoCubin,      // no cubin, or a damaged one
  kNoUtilities,  // no kernels for packing and checking
};

std::string_view to_string(LintKind kind);  // "hidden", "never-chosen", ...

struct LintFinding {
  LintKind kind = LintKind::kHidden;
  std::string where;   // "NVIDIA A40, gemm_n4096_k1024_g128_f16 m=1,2"
  std::string what;    // one clause
  std::string remedy;  // what to do, one sentence
};

// What a file is held against.
struct LintReference {
  std::string source_hash;  // of this tool's device sources
  // GPUs that are here, and their driver. Rows of other GPUs are held against the newest of their
  // own.
  std::vector<DeviceInfo> present;
  std::string driver;
};

// By device, problem, kind and M; stale rows of one problem and run are one finding. A faster trial
// is one of the same sources and protocol whose samples are faster beyond doubt (95 %) and by more
// than a tie. Begins runs in `store` that store nothing.
std::vector<LintFinding> lint(Store& store, const LintReference& reference);

}  // namespace w4tune

// Trial: one Candidate with everything that was learnt of it, good or bad. A row of the cache.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "core/kernel_config.h"
#include "core/launch_plan.h"
#include "core/problem.h"

namespace w4tune {

// One way to compute one Workload.
struct Candidate {
  KernelConfig config;
  Schedule schedule;

  auto operator<=>(const Candidate&) const = default;
};

// "mma_pipe row_tile=128 ... | split_k=4 raster=1"
std::string to_string(const Candidate& candidate);

// Persisted as text: do not rename.
enum class Outcome {
  kOk,
  kInvalidConfig,
  kCompileError,
  kResourceLimit,
  kLaunchError,
  kWrongResult,
  kTimeout,
};

std::string_view to_string(Outcome outcome);
Outcome parse_outcome(std::string_view text);

// How far a result is from the double-precision reference on the dequantised weights.
struct ErrorMetrics {
  double worst_ratio = 0.0;    // largest |error| / bound; above 1 the result is wrong
  double relative_norm = 0.0;  // ||y - ref|| / ||ref||
  double max_abs = 0.0;        // largest |error|

  bool operator==(const ErrorMetrics&) const = default;
};

struct Trial {
  Workload workload;
  Candidate candidate;
  Outcome outcome = Outcome::kInvalidConfig;
  std::string detail;  // one line where the outcome is not kOk
  ErrorMetrics error;
  std::vector<double> time_us;    // raw samples, each the mean launch of one graph replay
  std::vector<double> clock_mhz;  // SM clock of each sample; 0 where it could not be read
  std::string compilation_key;    // which cubin ran

  [[nodiscard]] double time_us_median() const;  // requires samples
};

}  // namespace w4tune

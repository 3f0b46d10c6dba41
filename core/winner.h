// Winner: the kernel that serves an interval of M of one Problem on one device.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/composite.h"
#include "core/launch_plan.h"
#include "core/problem.h"
#include "core/trial.h"

namespace w4tune {

enum class Provenance : std::uint8_t {
  kMeasured,   // timed on that very GPU
  kPredicted,  // ranked by the cost model
};

std::string_view to_string(Provenance provenance);
Provenance parse_provenance(std::string_view text);

struct Winner {
  Problem problem;
  int m = 0;  // where it was tuned
  // Serves m_lo <= M <= m_hi; m_hi is kUnboundedM for the last interval.
  int m_lo = 0;
  int m_hi = 0;
  Provenance provenance = Provenance::kPredicted;
  Candidate candidate;
  Footprint footprint;
  std::string compilation_key;
  int registers = 0;
  int spill_bytes = 0;
  double time_us_median = 0.0;  // measured, or predicted: see provenance
  // Measured only: the samples of the final run, and the error at m.
  std::vector<double> time_us;
  std::vector<double> clock_mhz;
  ErrorMetrics error;
  double floor_us = 0.0;           // the lower bound it is judged by
  double baseline_us = 0.0;        // cuBLASLt FP16 in the same run; 0 where not measured
  std::vector<Candidate> tie_set;  // measured candidates that could not be told from the winner
  // Measured, and faster than the kernel: what serves where cuBLASLt and its scratch are to be had.
  std::optional<Composite> composite = {};
};

// Times within this share of each other could not be told apart.
inline constexpr double kTieShare = 0.01;
inline bool beats(double time_us, double other_us) {
  return time_us * (1.0 + kTieShare) < other_us;
}

// Of the composite where there is one, else of the kernel.
inline double served_us(const Winner& winner) {
  return winner.composite ? winner.composite->time_us_median : winner.time_us_median;
}
inline const std::vector<double>& served_samples(const Winner& winner) {
  return winner.composite ? winner.composite->time_us : winner.time_us;
}
// The composite as text where there is one, else the candidate.
std::string served_text(const Winner& winner);

inline constexpr int kUnboundedM = 1 << 30;

// What the protocol's text of a measured winner holds where candidates were launched dependently. A
// file has, for one device, winners of one way to launch: the fastest of one are not the other's.
inline constexpr std::string_view kDependentText = "candidates as dependent launches";

// Sets m_lo and m_hi of the winners of one Problem, sorted by m: an M between two tuned ones is
// served by the next larger tuned M, whose time bounds it from above; the largest serves all
// beyond.
void assign_intervals(std::vector<Winner>& winners);

}  // namespace w4tune

// Where FP16 (cuBLASLt at its best, or BF16 for BF16 problems) stays faster than the winners, by
// the intervals of M that they serve.
//
// Both times of an interval are those at the M its winner was tuned at.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "core/winner.h"
#include "tuner/options.h"

namespace w4tune {

// By what share of the baseline's time the winner takes longer: 0.06 where FP16 is 6 % faster, 0
// where it is not faster, empty where it was not measured (baseline_us is 0).
std::optional<double> fp16_faster_by(double time_us, double baseline_us);

// "faster by 6.0 %", "not faster" or "unknown".
std::string fp16_text(const std::optional<double>& faster_by);

struct Fp16Interval {
  Problem problem;
  int m_lo = 0;  // m_lo <= M <= m_hi, as in Winner
  int m_hi = 0;
  std::optional<double> faster_by;  // at most, see fp16_faster_by

  bool operator==(const Fp16Interval&) const = default;
};

// The intervals of the winners by problem and M; neighbours of one problem with the same answer
// (faster, not faster, unknown) are one.
std::vector<Fp16Interval> fp16_intervals(const std::vector<Winner>& winners);
// The same of a run's winners, beside the baselines of that run.
std::vector<Fp16Interval> fp16_intervals(const TuneResult& result);

// The answer in plain words, a line each: where FP16 is faster, or that it is nowhere, and where it
// was not measured. Nothing without intervals.
std::vector<std::string> fp16_sentences(const std::vector<Fp16Interval>& intervals);

// "513-968", "16", or "969-" for what has no end.
std::string interval_text(int m_lo, int m_hi);

// {"m_lo", "m_hi": null where it has no end, "fp16_faster_by": null where unknown}
nlohmann::json fp16_json(int m_lo, int m_hi, const std::optional<double>& faster_by);
// Adds "fp16_intervals", the merged ones with their problems, and "fp16_summary", the sentences.
void add_fp16(nlohmann::json& document, const std::vector<Fp16Interval>& intervals);

}  // namespace w4tune

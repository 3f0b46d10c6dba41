#include "core/fp16_intervals.h"

#include <fmt/format.h>

#include <algorithm>

namespace w4tune {

bool fp16_is_faster(double served_us, double baseline_us) {
  return baseline_us > 0.0 && beats(baseline_us, served_us);
}

std::vector<Fp16Interval> fp16_intervals(const std::vector<Winner>& winners) {
  std::vector<Fp16Interval> intervals;
  for (const Winner& winner : winners) {
    const double served = served_us(winner);
    if (!fp16_is_faster(served, winner.baseline_us)) continue;
    const double share = served / winner.baseline_us - 1.0;
    const bool goes_on = !intervals.empty() && intervals.back().problem == winner.problem &&
                         intervals.back().m_hi + 1 == winner.m_lo;
    if (!goes_on) {
      intervals.push_back({winner.problem, winner.m_lo, winner.m_hi, share});
      continue;
    }
    Fp16Interval& last = intervals.back();
    last.m_hi = winner.m_hi;
    last.most = std::max(last.most, share);
  }
  return intervals;
}

std::vector<std::string> fp16_summary(const std::vector<Winner>& winners) {
  std::vector<std::string> lines;
  for (const Fp16Interval& interval : fp16_intervals(winners)) {
    const std::string range = interval.m_hi == kUnboundedM
                                  ? fmt::format("M from {} on", interval.m_lo)
                                  : fmt::format("M in {}..{}", interval.m_lo, interval.m_hi);
    lines.push_back(fmt::format("{} is faster for {} of {} (by up to {:.0f} %)",
                                interval.problem.dtype == Dtype::kF16 ? "FP16" : "BF16", range,
                                to_string(interval.problem), 100.0 * interval.most));
  }
  const auto compared = std::count_if(winners.begin(), winners.end(), [](const Winner& winner) {
    return winner.baseline_us > 0.0;
  });
  if (lines.empty() && compared > 0) lines.emplace_back("no interval where FP16 is faster");
  const auto rest = static_cast<std::ptrdiff_t>(winners.size()) - compared;
  if (rest > 0) {
    lines.push_back(fmt::format("{} of {} intervals were not compared with FP16", rest,
                                winners.size()));
  }
  return lines;
}

std::string interval_text(int m_lo, int m_hi) {
  if (m_hi == kUnboundedM) return fmt::format("{}-", m_lo);
  if (m_lo == m_hi) return fmt::format("{}", m_lo);
  return fmt::format("{}-{}", m_lo, m_hi);
}

}  // namespace w4tune

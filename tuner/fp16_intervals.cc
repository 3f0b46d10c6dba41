#include "tuner/fp16_intervals.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/stats.h"
#include "tuner/baseline.h"

namespace w4tune {
namespace {

bool is_faster(const Fp16Interval& interval) { return interval.faster_by.value_or(0.0) > 0.0; }

bool continues(const Fp16Interval& before, const Fp16Interval& next) {
  return before.problem == next.problem && before.m_hi + 1 == next.m_lo &&
         before.faster_by.has_value() == next.faster_by.has_value() &&
         is_faster(before) == is_faster(next);
}

std::vector<Fp16Interval> merged(std::vector<Fp16Interval> intervals) {
  std::sort(intervals.begin(), intervals.end(), [](const Fp16Interval& a, const Fp16Interval& b) {
    return a.problem != b.problem ? a.problem < b.problem : a.m_lo < b.m_lo;
  });
  std::vector<Fp16Interval> out;
  for (const Fp16Interval& next : intervals) {
    if (out.empty() || !continues(out.back(), next)) {
      out.push_back(next);
      continue;
    }
    out.back().m_hi = next.m_hi;
    out.back().faster_by = std::max(out.back().faster_by, next.faster_by);
  }
  return out;
}

// "M in 513..968 of gemm_n2048_k16384_g128_f16"
std::string where(const Fp16Interval& interval) {
  std::string tokens = fmt::format("M in {}..{}", interval.m_lo, interval.m_hi);
  if (interval.m_lo == interval.m_hi) tokens = fmt::format("M = {}", interval.m_lo);
  if (interval.m_hi == kUnboundedM) tokens = fmt::format("M from {} on", interval.m_lo);
  if (interval.m_hi == kUnboundedM && interval.m_lo == 1) tokens = "every M";
  return fmt::format("{} of {}", tokens, to_string(interval.problem));
}

std::string faster_sentence(const Fp16Interval& interval) {
  const std::string note = baseline_note(interval.problem);
  return fmt::format("{} is faster for {} (by {}{:.1f} %{})", baseline_type(interval.problem),
                     where(interval), interval.m_lo == interval.m_hi ? "" : "up to ",
                     100.0 * *interval.faster_by, note.empty() ? "" : "; " + note);
}

// Of the intervals of problems of one type.
void append_sentences(std::vector<std::string>& out, const std::vector<Fp16Interval>& intervals) {
  const auto unknown = std::count_if(intervals.begin(), intervals.end(),
                                     [](const auto& interval) { return !interval.faster_by; });
  const std::string type = baseline_type(intervals.front().problem);
  if (unknown == std::ssize(intervals)) {
    out.push_back(fmt::format("{} was not measured: whether it is faster is unknown", type));
    return;
  }
  if (std::none_of(intervals.begin(), intervals.end(), is_faster)) {
    out.push_back(
        fmt::format("{} is nowhere faster{}", type, unknown > 0 ? " where it was measured" : ""));
  }
  for (const Fp16Interval& interval : intervals) {
    if (is_faster(interval)) out.push_back(faster_sentence(interval));
  }
  for (const Fp16Interval& interval : intervals) {
    if (interval.faster_by) continue;
    out.push_back(fmt::format("{} was not measured for {}: whether it is faster there is unknown",
                              type, where(interval)));
  }
}

}  // namespace

std::optional<double> fp16_faster_by(double time_us, double baseline_us) {
  if (baseline_us <= 0.0) return std::nullopt;
  return std::max(0.0, time_us / baseline_us - 1.0);
}

std::string fp16_text(const std::optional<double>& faster_by) {
  if (!faster_by) return "unknown";
  return *faster_by > 0.0 ? fmt::format("faster by {:.1f} %", 100.0 * *faster_by) : "not faster";
}

std::vector<Fp16Interval> fp16_intervals(const std::vector<Winner>& winners) {
  std::vector<Fp16Interval> intervals;
  for (const Winner& winner : winners) {
    intervals.push_back({winner.problem, winner.m_lo, winner.m_hi,
                         fp16_faster_by(served_us(winner), winner.baseline_us)});
  }
  return merged(std::move(intervals));
}

std::vector<Fp16Interval> fp16_intervals(const TuneResult& result) {
  std::vector<Winner> winners;
  for (const WorkloadResult& row : result.rows) {
    if (!row.winner) continue;
    winners.push_back(*row.winner);
    winners.back().baseline_us = row.baseline ? median(row.baseline->time_us) : 0.0;
  }
  return fp16_intervals(winners);
}

std::vector<std::string> fp16_sentences(const std::vector<Fp16Interval>& intervals) {
  std::vector<std::string> out;
  for (const Dtype dtype : {Dtype::kF16, Dtype::kBF16}) {
    std::vector<Fp16Interval> of_type;
    std::copy_if(intervals.begin(), intervals.end(), std::back_inserter(of_type),
                 [&](const auto& interval) { return interval.problem.dtype == dtype; });
    if (!of_type.empty()) append_sentences(out, of_type);
  }
  return out;
}

std::string interval_text(int m_lo, int m_hi) {
  if (m_hi == kUnboundedM) return fmt::format("{}-", m_lo);
  if (m_lo == m_hi) return fmt::format("{}", m_lo);
  return fmt::format("{}-{}", m_lo, m_hi);
}

nlohmann::json fp16_json(int m_lo, int m_hi, const std::optional<double>& faster_by) {
  nlohmann::json out = {{"m_lo", m_lo}};
  out["m_hi"] = m_hi == kUnboundedM ? nlohmann::json(nullptr) : nlohmann::json(m_hi);
  out["fp16_faster_by"] = faster_by ? nlohmann::json(*faster_by) : nlohmann::json(nullptr);
  return out;
}

void add_fp16(nlohmann::json& document, const std::vector<Fp16Interval>& intervals) {
  nlohmann::json rows = nlohmann::json::array();
  for (const Fp16Interval& interval : intervals) {
    rows.push_back(fp16_json(interval.m_lo, interval.m_hi, interval.faster_by));
    rows.back()["problem"] = to_string(interval.problem);
  }
  document["fp16_intervals"] = std::move(rows);
  document["fp16_summary"] = fp16_sentences(intervals);
}

}  // namespace w4tune

// Comparison: one report against another, workload by workload, with a verdict that may be "don't
// know". Knows no command line and no file.
//
// A ratio is A's time over B's: above 1, B is faster. Its interval is the bootstrap's over the raw
// samples of both sides (core/bootstrap.h), widened by the run noise: the samples of one run are
// taken within milliseconds, on the same addresses and at the same temperature, and say nothing of
// how the next run of the same kernel will differ.
//
//   SLOWER, FASTER  by more than the threshold, also if the p-values are Holm's for all workloads
//   SAME            the 95 % interval lies within the threshold
//   UNCLEAR         anything else; the reason says what stood in the way
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/problem.h"
#include "tuner/report_reader.h"

namespace w4tune {

enum class Verdict : std::uint8_t { kFaster, kSlower, kSame, kUnclear };
inline constexpr std::array kVerdicts = {Verdict::kFaster, Verdict::kSlower, Verdict::kSame,
                                         Verdict::kUnclear};
std::string_view to_string(Verdict verdict);  // "FASTER"

// What is judged where the SM clocks of A and B differ. How much of a kernel's time follows the
// clock lies between none of it (bound by DRAM) and all of it.
enum class ClockRule : std::uint8_t {
  kBoth,    // times and cycles must agree; the interval holds those of both
  kCycles,  // cycles: times at one clock
  kTime,    // times as they were measured
};

struct ComparisonOptions {
  double threshold = 0.01;   // a smaller share of the time does not matter
  double run_noise = 0.003;  // at least so much: a standard deviation of the log of a ratio
  ClockRule clock_rule = ClockRule::kBoth;
  bool ignore_protocol = false;  // judge times of different protocols, too
};

struct Interval {
  double lo = 0.0;
  double hi = 0.0;
};

struct ComparedRow {
  Workload workload;
  Verdict verdict = Verdict::kUnclear;
  std::string reason;  // why UNCLEAR, or what the verdict rests on; may be empty
  double a_us = 0.0;
  double b_us = 0.0;
  double ratio = 0.0;                // of what the clock rule says; kBoth: of times
  std::optional<Interval> interval;  // 95 %, of this row alone
  std::optional<double> p_value;     // Holm's, that the difference is within the threshold
  // Set where clocks differ and the rule is not kTime.
  struct Clocks {
    double a_mhz = 0.0;
    double b_mhz = 0.0;
    double ratio_of_cycles = 0.0;
  };
  std::optional<Clocks> clocks;
  Provenance a_provenance = Provenance::kMeasured;
  Provenance b_provenance = Provenance::kMeasured;
  std::string a_config;
  std::string b_config;
};

// Geometric mean of ratios. The interval holds the run noise in full, however many rows there are:
// a drift of the machine meets all alike. None where a row has no samples.
struct GroupMean {
  std::string name;
  int rows = 0;
  double ratio = 0.0;
  std::optional<Interval> interval;
};

// How far apart two runs of one kernel are, judged by the baselines: the same algorithm of cuBLASLt
// at the same workload on the same GPU and driver, in both reports.
struct RunNoise {
  double deviation = 0.0;  // what the intervals were widened by
  int controls = 0;        // pairs of baselines; too few of them leave ComparisonOptions::run_noise
  double control_ratio = 1.0;  // their median: what the machine itself gained or lost
};

struct EnvironmentDifference {
  std::string key;
  std::string a;
  std::string b;
};

struct Comparison {
  std::string a;  // names of the reports
  std::string b;
  std::vector<EnvironmentDifference> environment;  // of what both tell
  bool same_protocol = true;
  RunNoise noise;
  std::vector<ComparedRow> rows;  // by problem and m
  std::vector<Workload> missing;  // in A alone
  std::vector<Workload> added;    // in B alone
  std::vector<GroupMean> by_problem;
  std::vector<GroupMean> by_tokens;  // bands of M
  std::optional<GroupMean> all;      // none where no row has times to divide

  [[nodiscard]] int count(Verdict verdict) const;
};

// The first report against each of the others. Requires two.
std::vector<Comparison> compare_reports(const std::vector<Report>& reports,
                                        const ComparisonOptions& options);

}  // namespace w4tune

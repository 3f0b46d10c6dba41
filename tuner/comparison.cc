#include "tuner/comparison.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "core/bootstrap.h"
#include "core/check.h"
#include "core/stats.h"

namespace w4tune {
namespace {

constexpr double kAlpha = 0.05;            // of an interval, and of all verdicts together
constexpr double kNormalReach = 1.959964;  // standard deviations that hold 1 - kAlpha
constexpr std::size_t kLeastSamples = 9;   // fewer have no tails to speak of
constexpr std::size_t kLeastControls = 8;
// Clocks closer than this, or than the threshold, are one clock: they move no verdict.
constexpr double kClockShare = 0.01;

// What says where and how was measured, in the order it is told.
constexpr std::array kEnvironment = {
    "gpu",    "sm",     "sm_count",    "l2_bytes", "driver",        "cuda",       "nvrtc",
    "w4tune", "commit", "source_hash", "protocol", "mma_denormals", "mma_source", "assumed"};

// Bands of M: one decode step, a few streams, short prompts, prefixes.
struct Band {
  int last;
  const char* name;
};
constexpr std::array kBands = {Band{16, "M 1-16"}, Band{64, "M 17-64"}, Band{256, "M 65-256"},
                               Band{1 << 30, "M 257-"}};

std::string value_of(const Report& report, const char* key) {
  const auto found = report.environment.find(key);
  return found == report.environment.end() ? "" : found->second;
}

bool agrees(const Report& a, const Report& b, const char* key) {
  return value_of(a, key) == value_of(b, key);
}

// Only what both tell: a cache file or a report of bench does not know everything.
std::vector<EnvironmentDifference> environment_differences(const Report& a, const Report& b) {
  const auto tells = [](const std::string& value) { return !value.empty() && value != "null"; };
  std::vector<EnvironmentDifference> differences;
  for (const char* key : kEnvironment) {
    const std::string mine = value_of(a, key);
    const std::string theirs = value_of(b, key);
    if (tells(mine) && tells(theirs) && mine != theirs) differences.push_back({key, mine, theirs});
  }
  return differences;
}

bool has_samples(const Timing& timing) { return timing.time_us.size() >= kLeastSamples; }

double middle_us(const Timing& timing) {
  return timing.time_us.empty() ? timing.time_us_median : median(timing.time_us);
}

bool clocks_differ(double a_mhz, double b_mhz, double share) {
  return std::abs(std::log(a_mhz / b_mhz)) > share;
}

// Rows of two reports that are of one workload.
struct Pair {
  const ReportRow* a;
  const ReportRow* b;
};

// What the machine itself did between the runs.
RunNoise run_noise(const Report& a, const Report& b, const std::vector<Pair>& pairs, double least) {
  RunNoise noise;
  noise.deviation = least;
  if (!agrees(a, b, "gpu") || !agrees(a, b, "driver") || !agrees(a, b, "protocol")) return noise;
  std::vector<double> logs;
  for (const Pair& pair : pairs) {
    const auto& mine = pair.a->baseline;
    const auto& theirs = pair.b->baseline;
    if (!mine || !theirs || mine->name != theirs->name || mine->detail != theirs->detail) continue;
    const auto& a_mhz = mine->timing.clock_mhz;
    const auto& b_mhz = theirs->timing.clock_mhz;
    if (a_mhz.empty() != b_mhz.empty()) continue;
    // At another clock the same code is no control.
    if (!a_mhz.empty() && clocks_differ(median(a_mhz), median(b_mhz), kClockShare)) continue;
    logs.push_back(std::log(middle_us(mine->timing) / middle_us(theirs->timing)));
  }
  noise.controls = static_cast<int>(logs.size());
  if (logs.empty()) return noise;
  noise.control_ratio = std::exp(median(logs));
  if (logs.size() >= kLeastControls) noise.deviation = std::max(least, robust_deviation(logs));
  return noise;
}

std::vector<double> cycles_of(const Timing& timing) {
  std::vector<double> cycles = timing.time_us;
  for (std::size_t i = 0; i < cycles.size(); ++i) {
    cycles[i] *= timing.clock_mhz.size() == 1 ? timing.clock_mhz[0] : timing.clock_mhz[i];
  }
  return cycles;
}

std::optional<ComparedRow::Clocks> differing_clocks(const Timing& a, const Timing& b,
                                                    double share) {
  if (a.clock_mhz.empty() || b.clock_mhz.empty()) return std::nullopt;
  const double a_mhz = median(a.clock_mhz);
  const double b_mhz = median(b.clock_mhz);
  if (!clocks_differ(a_mhz, b_mhz, share)) return std::nullopt;
  return ComparedRow::Clocks{a_mhz, b_mhz, middle_us(a) * a_mhz / (middle_us(b) * b_mhz)};
}

// A row under way: what Holm's correction and the means need of it beside what is shown.
struct Judged {
  ComparedRow row;
  bool tested = false;
  double p_slower = 1.0;
  double p_faster = 1.0;
  // For the means; of times and of cycles, the same where the clocks do not differ.
  bool divisible = false;
  double log_time = 0.0;
  double log_cycles = 0.0;
  std::optional<double> variance;
};

class Judge {
 public:
  Judge(const ComparisonOptions& options, const RunNoise& noise, bool same_protocol)
      : options_(options),
        limit_(std::log1p(options.threshold)),
        noise_(noise.deviation),
        same_protocol_(same_protocol || options.ignore_protocol) {}

  [[nodiscard]] Judged judge(const ReportRow& a, const ReportRow& b) const {
    Judged out;
    ComparedRow& row = out.row;
    row.workload = a.workload;
    row.a_provenance = a.provenance;
    row.b_provenance = b.provenance;
    row.a_config = a.config;
    row.b_config = b.config;
    row.a_us = middle_us(a.timing);
    row.b_us = middle_us(b.timing);
    row.ratio = row.a_us / row.b_us;
    out.log_time = out.log_cycles = std::log(row.ratio);
    if (a.provenance != b.provenance) {
      row.reason = fmt::format("{} against {}", to_string(a.provenance), to_string(b.provenance));
      return out;
    }
    out.divisible = true;
    if (has_samples(a.timing) && has_samples(b.timing)) {
      judge_samples(out, a.timing, b.timing);
    } else {
      judge_medians(out);
    }
    if (!same_protocol_) {
      out.tested = false;
      row.verdict = Verdict::kUnclear;
      row.reason = "protocols differ";
    }
    return out;
  }

  // Once p-values of all rows are adjusted.
  void conclude(Judged& judged, double p_value) const {
    ComparedRow& row = judged.row;
    row.p_value = p_value;
    const bool beyond = judged.p_slower < kAlpha || judged.p_faster < kAlpha;
    if (p_value < kAlpha) {
      row.verdict = judged.p_slower < judged.p_faster ? Verdict::kSlower : Verdict::kFaster;
    } else if (std::log(row.interval->hi) <= limit_ && std::log(row.interval->lo) >= -limit_) {
      row.verdict = Verdict::kSame;
    } else if (beyond) {
      row.reason = "not beyond doubt among so many workloads";
    } else {
      row.reason = row.clocks && disagrees(judged) ? "clocks differ: times and cycles disagree"
                                                   : "interval crosses the threshold";
    }
  }

 private:
  // The p-values are of the least favourable difference within the threshold, for both directions.
  void judge_samples(Judged& out, const Timing& a, const Timing& b) const {
    ComparedRow& row = out.row;
    if (options_.clock_rule != ClockRule::kTime) {
      row.clocks = differing_clocks(a, b, std::min(kClockShare, limit_));
    }
    std::vector<LogRatio> ratios;
    if (!row.clocks || options_.clock_rule == ClockRule::kBoth) {
      ratios.emplace_back(a.time_us, b.time_us, noise_);
    }
    if (row.clocks) {
      ratios.emplace_back(cycles_of(a), cycles_of(b), noise_);
      row.clocks->ratio_of_cycles = std::exp(ratios.back().estimate());
      out.log_cycles = ratios.back().estimate();
    }
    row.ratio = std::exp(ratios.front().estimate());
    if (options_.clock_rule == ClockRule::kCycles) out.log_time = out.log_cycles;
    out.variance = ratios.front().variance();
    out.tested = true;
    out.p_slower = out.p_faster = 0.0;
    row.interval = Interval{row.ratio, row.ratio};
    for (const LogRatio& ratio : ratios) {
      out.p_slower = std::max(out.p_slower, std::min(1.0, 2.0 * ratio.at_least(-limit_)));
      out.p_faster = std::max(out.p_faster, std::min(1.0, 2.0 * ratio.at_most(limit_)));
      row.interval->lo = std::min(row.interval->lo, std::exp(ratio.quantile(0.5 * kAlpha)));
      row.interval->hi = std::max(row.interval->hi, std::exp(ratio.quantile(1.0 - 0.5 * kAlpha)));
    }
  }

  void judge_medians(Judged& out) const {
    const bool close = std::abs(out.log_time) <= limit_;
    const bool predicted = out.row.a_provenance == Provenance::kPredicted;
    out.row.verdict = close ? Verdict::kSame : Verdict::kUnclear;
    out.row.reason = fmt::format(
        "{}, medians alone",
        predicted ? std::string("predicted") : fmt::format("fewer than {} samples", kLeastSamples));
  }

  [[nodiscard]] bool disagrees(const Judged& judged) const {
    const auto side = [&](double log) { return log > limit_ ? 1 : log < -limit_ ? -1 : 0; };
    return side(judged.log_time) != side(judged.log_cycles);
  }

  const ComparisonOptions& options_;
  double limit_;  // the threshold as a log
  double noise_;
  bool same_protocol_;
};

template <class Rows>
std::optional<GroupMean> group_mean(std::string name, const Rows& rows, double noise) {
  double time = 0.0;
  double cycles = 0.0;
  double variance = 0.0;
  bool sampled = true;
  int count = 0;
  for (const Judged* row : rows) {
    if (!row->divisible) continue;
    ++count;
    time += row->log_time;
    cycles += row->log_cycles;
    sampled = sampled && row->variance.has_value();
    variance += row->variance.value_or(0.0);
  }
  if (count == 0) return std::nullopt;
  time /= count;
  cycles /= count;
  GroupMean mean{std::move(name), count, std::exp(time), std::nullopt};
  if (sampled) {
    const double reach =
        kNormalReach * std::sqrt(variance / (static_cast<double>(count) * count) + noise * noise);
    mean.interval = Interval{std::exp(std::min(time, cycles) - reach),
                             std::exp(std::max(time, cycles) + reach)};
  }
  return mean;
}

void add_means(Comparison& comparison, const std::vector<Judged>& rows) {
  std::map<Problem, std::vector<const Judged*>> problems;
  std::array<std::vector<const Judged*>, kBands.size()> bands;
  std::vector<const Judged*> all;
  for (const Judged& row : rows) {
    problems[row.row.workload.problem].push_back(&row);
    const auto band = std::find_if(kBands.begin(), kBands.end(), [&](const Band& each) {
      return row.row.workload.m <= each.last;
    });
    bands[static_cast<std::size_t>(band - kBands.begin())].push_back(&row);
    all.push_back(&row);
  }
  const double noise = comparison.noise.deviation;
  for (const auto& [problem, members] : problems) {
    if (auto mean = group_mean(to_string(problem), members, noise)) {
      comparison.by_problem.push_back(*mean);
    }
  }
  for (std::size_t i = 0; i < bands.size(); ++i) {
    if (auto mean = group_mean(kBands[i].name, bands[i], noise)) {
      comparison.by_tokens.push_back(*mean);
    }
  }
  comparison.all = group_mean("all", all, noise);
}

// Pairs, and what has no partner. Both reports are sorted.
std::vector<Pair> pairs_of(const Report& a, const Report& b, Comparison& comparison) {
  std::vector<Pair> pairs;
  auto theirs = b.rows.begin();
  for (const ReportRow& mine : a.rows) {
    for (; theirs != b.rows.end() && theirs->workload < mine.workload; ++theirs) {
      comparison.added.push_back(theirs->workload);
    }
    if (theirs != b.rows.end() && theirs->workload == mine.workload) {
      pairs.push_back({&mine, &*theirs++});
    } else {
      comparison.missing.push_back(mine.workload);
    }
  }
  for (; theirs != b.rows.end(); ++theirs) comparison.added.push_back(theirs->workload);
  return pairs;
}

}  // namespace

std::string_view to_string(Verdict verdict) {
  switch (verdict) {
    case Verdict::kFaster: return "FASTER";
    case Verdict::kSlower: return "SLOWER";
    case Verdict::kSame: return "SAME";
    case Verdict::kUnclear: return "UNCLEAR";
  }
  return "UNCLEAR";
}

int Comparison::count(Verdict verdict) const {
  return static_cast<int>(std::count_if(
      rows.begin(), rows.end(), [&](const ComparedRow& row) { return row.verdict == verdict; }));
}

std::vector<Comparison> compare_reports(const std::vector<Report>& reports,
                                        const ComparisonOptions& options) {
  W4_CHECK(reports.size() >= 2, "a comparison needs two reports");
  const Report& a = reports.front();
  std::vector<Comparison> comparisons(reports.size() - 1);
  std::vector<std::vector<Judged>> judged(comparisons.size());
  std::vector<Judge> judges;
  std::vector<double> p_values;  // of all comparisons: one call, one family of tests
  for (std::size_t i = 0; i < comparisons.size(); ++i) {
    const Report& b = reports[i + 1];
    Comparison& comparison = comparisons[i];
    comparison.a = a.name;
    comparison.b = b.name;
    comparison.environment = environment_differences(a, b);
    comparison.same_protocol = agrees(a, b, "protocol");
    const std::vector<Pair> pairs = pairs_of(a, b, comparison);
    comparison.noise = run_noise(a, b, pairs, options.run_noise);
    judges.emplace_back(options, comparison.noise, comparison.same_protocol);
    for (const Pair& pair : pairs) {
      judged[i].push_back(judges[i].judge(*pair.a, *pair.b));
      const Judged& last = judged[i].back();
      if (last.tested) p_values.push_back(std::min(last.p_slower, last.p_faster));
    }
  }
  const std::vector<double> adjusted = holm_adjusted(p_values);
  auto next = adjusted.begin();
  for (std::size_t i = 0; i < comparisons.size(); ++i) {
    for (Judged& row : judged[i]) {
      if (row.tested) judges[i].conclude(row, *next++);
    }
    add_means(comparisons[i], judged[i]);
    for (Judged& row : judged[i]) comparisons[i].rows.push_back(std::move(row.row));
  }
  return comparisons;
}

}  // namespace w4tune

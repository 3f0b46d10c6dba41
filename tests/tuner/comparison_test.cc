#include "tuner/comparison.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <random>

#include "core/stats.h"
#include "tests/tuner/synthetic_runs.h"

namespace w4tune {
namespace {

constexpr int kComparisons = 200;

Timing timing(std::vector<double> time_us, std::vector<double> clock_mhz = {}) {
  return {median(time_us), time_us, std::move(clock_mhz)};
}

// 25 samples around a time, all alike but for 0.4 %.
std::vector<double> around(double time_us) {
  std::vector<double> samples;
  for (int i = -12; i <= 12; ++i) samples.push_back(time_us * (1.0 + 0.004 * i / 12.0));
  return samples;
}

Report report_of(const std::vector<Timing>& timings, const std::string& name = "r") {
  Report report;
  report.name = name;
  report.environment = {{"gpu", "G"}, {"driver", "1"}, {"protocol", "cold"}, {"commit", name}};
  int m = 1;
  for (const Timing& each : timings) {
    report.rows.push_back({{{Op::kGemm, 4096, 1024, 128, Dtype::kF16}, m++},
                           Provenance::kMeasured,
                           "mma_pipe stages=4 | split_k=1 raster=1",
                           each,
                           std::nullopt});
  }
  return report;
}

Comparison compare(const Report& a, const Report& b, const ComparisonOptions& options = {}) {
  return compare_reports({a, b}, options).front();
}

int changed(const Comparison& comparison) {
  return comparison.count(Verdict::kFaster) + comparison.count(Verdict::kSlower);
}

// What an A/A experiment of many comparisons came to.
struct Alarms {
  int families = 0;  // comparisons with any FASTER or SLOWER
  int rows = 0;
  int same = 0;
  int all = 0;

  void add(const Comparison& comparison) {
    families += static_cast<int>(changed(comparison) > 0);
    rows += changed(comparison);
    same += comparison.count(Verdict::kSame);
    all += static_cast<int>(comparison.rows.size());
  }
};

void expect_quiet(const Alarms& alarms, double least_same) {
  EXPECT_LE(alarms.families, kComparisons / 20) << "5 % of the comparisons";
  EXPECT_LE(alarms.rows, alarms.all / 20);
  EXPECT_GE(alarms.same, least_same * alarms.all) << "it does not hide behind UNCLEAR";
}

// The runs of one machine, measured again and again.
TEST(ComparisonAA, RemeasuredReportsRaiseNoFalseAlarms) {
  const SyntheticMachine machine;
  Alarms alarms;
  for (std::uint64_t i = 0; i < kComparisons; ++i) {
    alarms.add(compare(machine.run(2 * i), machine.run(2 * i + 1)));
  }
  expect_quiet(alarms, 0.5);
}

// A machine whose runs differ twice as much as the default allows for: its baselines give it away.
TEST(ComparisonAA, BaselinesTellARestlessMachine) {
  SyntheticMachine::Noise noise;
  noise.between = 0.006;
  noise.restless = 1.0;
  const SyntheticMachine machine(noise);
  Alarms alarms;
  for (std::uint64_t i = 0; i < kComparisons; ++i) {
    const Comparison comparison = compare(machine.run(2 * i), machine.run(2 * i + 1));
    EXPECT_GT(comparison.noise.deviation, 0.005);
    alarms.add(comparison);
  }
  expect_quiet(alarms, 0.0);
}

Report read_result(const std::string& name) {
  return read_report(std::string(W4TUNE_SOURCE_DIR) + "/results/" + name,
                     [](const DeviceInfo&) { return true; });
}

// Each row's samples of one real run, dealt out at random to two reports.
TEST(ComparisonAA, HalvesOfRealSamplesRaiseNoFalseAlarms) {
  const Report whole = read_result("h200/small_m_f16.json");
  Alarms alarms;
  for (std::uint64_t i = 0; i < kComparisons; ++i) {
    std::mt19937_64 random(i);
    Report a = whole;
    Report b = whole;
    for (std::size_t r = 0; r < whole.rows.size(); ++r) {
      std::vector<double> samples = whole.rows[r].timing.time_us;
      std::shuffle(samples.begin(), samples.end(), random);
      const auto half = samples.begin() + static_cast<std::ptrdiff_t>(samples.size() / 2);
      a.rows[r].timing.time_us.assign(samples.begin(), half);
      b.rows[r].timing.time_us.assign(half, samples.end());
    }
    alarms.add(compare(a, b));
  }
  expect_quiet(alarms, 0.8);
}

// Two runs on one H200 some seconds apart. The tuned kernels differ, but both measured cuBLASLt and
// the read-only kernel: 81 pairs of the same code.
Report controls_of(const std::string& name, const char* what) {
  Report report = read_result(name);
  std::ifstream stream(std::string(W4TUNE_SOURCE_DIR) + "/results/" + name);
  const auto document = nlohmann::json::parse(stream);
  for (const auto& source : document.at("rows")) {
    const Workload workload{{source.at("op") == "gemm" ? Op::kGemm : Op::kGeglu, source.at("n"),
                             source.at("k"), source.at("group"), Dtype::kF16},
                            source.at("m")};
    for (ReportRow& row : report.rows) {
      if (row.workload != workload) continue;
      const auto& control = std::string(what) == "read" ? source.at("read")
                                                        : source.at("baselines").at("cublaslt_f16");
      row.timing = timing(control.at("time_us_samples").get<std::vector<double>>());
      row.config = control.value("detail", "read");
    }
  }
  return report;
}

TEST(ComparisonAA, RealRunsOfTheSameCodeAreNotToldApart) {
  int naive_alarms = 0;
  int rows = 0;
  for (const char* what : {"read", "cublaslt_f16"}) {
    const Report a = controls_of("h200/small_m_f16.json", what);
    const Report b = controls_of("h200/small_m_chained_f16.json", what);
    const Comparison comparison = compare(a, b);
    for (const ComparedRow& row : comparison.rows) {
      if (row.a_config != row.b_config) continue;  // another algorithm of cuBLASLt
      EXPECT_TRUE(row.verdict == Verdict::kSame || row.verdict == Verdict::kUnclear)
          << what << " " << to_string(row.workload) << " " << row.ratio;
      ++rows;
    }
    // What the samples alone would say.
    ComparisonOptions naive;
    naive.threshold = 0.0;
    naive.run_noise = 0.0;
    Report alone = a;
    for (ReportRow& row : alone.rows) row.baseline.reset();
    for (const ComparedRow& row : compare(alone, b, naive).rows) {
      const bool told_apart = row.verdict == Verdict::kFaster || row.verdict == Verdict::kSlower;
      naive_alarms += static_cast<int>(told_apart && row.a_config == row.b_config);
    }
  }
  EXPECT_EQ(rows, 81);
  EXPECT_GE(naive_alarms, 5) << "the samples of one run know nothing of the next";
}

TEST(ComparisonAB, FindsFiveSlowRowsOfSixtyAndNothingElse) {
  const std::map<int, double> slower = {{3, 1.03}, {14, 1.03}, {25, 1.03}, {36, 1.03}, {58, 1.03}};
  const SyntheticMachine machine;
  int complete = 0;
  int clean = 0;
  for (std::uint64_t i = 0; i < 100; ++i) {
    const Comparison comparison = compare(machine.run(2 * i), machine.run(2 * i + 1, slower));
    int found = 0;
    for (std::size_t r = 0; r < comparison.rows.size(); ++r) {
      if (comparison.rows[r].verdict != Verdict::kSlower) continue;
      // Rows are sorted by problem and m, as they were made.
      found += static_cast<int>(slower.count(static_cast<int>(r)));
    }
    complete += static_cast<int>(found == 5);
    clean += static_cast<int>(changed(comparison) == found);
    if (i == 0) {
      EXPECT_EQ(found, 5);
      EXPECT_EQ(changed(comparison), 5);
    }
  }
  EXPECT_GE(complete, 95);
  EXPECT_GE(clean, 95);
}

TEST(ComparisonAB, IsTheSameEachTime) {
  const SyntheticMachine machine;
  const Comparison one = compare(machine.run(1), machine.run(2));
  const Comparison two = compare(machine.run(1), machine.run(2));
  for (std::size_t r = 0; r < one.rows.size(); ++r) {
    EXPECT_EQ(one.rows[r].interval->lo, two.rows[r].interval->lo);
    EXPECT_EQ(one.rows[r].p_value, two.rows[r].p_value);
  }
}

TEST(Comparison, KnownDifferencesHaveKnownVerdicts) {
  const Comparison comparison = compare(report_of({timing(around(10.0)), timing(around(10.0)),
                                                   timing(around(10.0)), timing(around(10.0))}),
                                        report_of({timing(around(10.0)), timing(around(10.5)),
                                                   timing(around(9.5)), timing(around(10.1))}));
  EXPECT_EQ(comparison.rows[0].verdict, Verdict::kSame);
  EXPECT_EQ(comparison.rows[1].verdict, Verdict::kSlower);
  EXPECT_NEAR(comparison.rows[1].ratio, 10.0 / 10.5, 1e-12);
  EXPECT_LT(comparison.rows[1].interval->hi, 0.96);
  EXPECT_GT(comparison.rows[1].interval->lo, 0.94);
  EXPECT_LT(*comparison.rows[1].p_value, 1e-6);
  EXPECT_EQ(comparison.rows[2].verdict, Verdict::kFaster);
  EXPECT_EQ(comparison.rows[3].verdict, Verdict::kUnclear);
  EXPECT_EQ(comparison.rows[3].reason, "interval crosses the threshold");
  ASSERT_TRUE(comparison.all);
  EXPECT_NEAR(comparison.all->ratio, std::pow(1.0 / (1.05 * 0.95 * 1.01), 0.25), 1e-9);
  EXPECT_NEAR(std::log(comparison.all->interval->hi / comparison.all->ratio), 1.96 * 0.003, 3e-4)
      << "the run noise in full";
}

TEST(Comparison, AThresholdAndNoiseOfZeroJudgeTheSamplesAlone) {
  ComparisonOptions options;
  options.threshold = 0.0;
  options.run_noise = 0.0;
  const Comparison comparison =
      compare(report_of({timing(around(10.0)), timing(around(10.0))}),
              report_of({timing(around(10.05)), timing(around(10.0))}), options);
  EXPECT_EQ(comparison.rows[0].verdict, Verdict::kSlower);
  EXPECT_EQ(comparison.rows[1].verdict, Verdict::kUnclear) << "nothing is within 0 %";
}

TEST(Comparison, ManyWorkloadsTakeMoreEvidence) {
  // 2.0 % slower with a noise of 0.3 %: enough for one workload, too little for one of 114.
  std::vector<Timing> a(114, timing(around(10.0)));
  std::vector<Timing> b = a;
  b[0] = timing(around(10.19));
  EXPECT_EQ(compare(report_of({a[0]}), report_of({b[0]})).rows[0].verdict, Verdict::kSlower);
  const Comparison many = compare(report_of(a), report_of(b));
  EXPECT_EQ(many.rows[0].verdict, Verdict::kUnclear);
  EXPECT_EQ(many.rows[0].reason, "not beyond doubt among so many workloads");
  // So do many reports.
  const auto three = compare_reports({report_of({a[0]}), report_of({b[0]}), report_of({a[0]})}, {});
  ASSERT_EQ(three.size(), 2U);
  EXPECT_GT(*three[0].rows[0].p_value,
            *compare(report_of({a[0]}), report_of({b[0]})).rows[0].p_value);
  EXPECT_EQ(three[1].rows[0].verdict, Verdict::kSame);
}

TEST(Comparison, WithoutSamplesItIsSameOrUnclear) {
  const Timing ten{10.0, {}, {}};
  const Timing eleven{11.0, {}, {}};
  const Timing few{11.0, {11.0, 11.0, 11.0}, {}};
  const Comparison comparison = compare(report_of({ten, ten, ten}), report_of({ten, eleven, few}));
  EXPECT_EQ(comparison.rows[0].verdict, Verdict::kSame);
  EXPECT_EQ(comparison.rows[0].reason, "fewer than 9 samples, medians alone");
  EXPECT_FALSE(comparison.rows[0].interval);
  EXPECT_EQ(comparison.rows[1].verdict, Verdict::kUnclear);
  EXPECT_EQ(comparison.rows[2].verdict, Verdict::kUnclear);
  EXPECT_FALSE(comparison.all->interval);
  EXPECT_NEAR(comparison.all->ratio, std::pow(10.0 / 11.0, 2.0 / 3.0), 1e-12);
}

TEST(Comparison, PredictionsAreNotHeldAgainstMeasurements) {
  Report a = report_of({timing(around(10.0)), {10.0, {}, {}}});
  Report b = report_of({timing(around(20.0)), {10.0, {}, {}}});
  a.rows[0].provenance = a.rows[1].provenance = b.rows[1].provenance = Provenance::kPredicted;
  const Comparison comparison = compare(a, b);
  EXPECT_EQ(comparison.rows[0].verdict, Verdict::kUnclear);
  EXPECT_EQ(comparison.rows[0].reason, "predicted against measured");
  EXPECT_EQ(comparison.rows[1].reason, "predicted, medians alone");
  EXPECT_EQ(comparison.all->rows, 1);
}

TEST(Comparison, OtherProtocolsAreNotJudged) {
  const Report a = report_of({timing(around(10.0))});
  Report b = report_of({timing(around(20.0))});
  b.environment["protocol"] = "warm";
  const Comparison comparison = compare(a, b);
  EXPECT_FALSE(comparison.same_protocol);
  EXPECT_EQ(comparison.rows[0].verdict, Verdict::kUnclear);
  EXPECT_EQ(comparison.rows[0].reason, "protocols differ");
  ComparisonOptions options;
  options.ignore_protocol = true;
  EXPECT_EQ(compare(a, b, options).rows[0].verdict, Verdict::kSlower);
}

// A kernel that follows the clock, one that does not, and one that is slower by either measure.
TEST(Comparison, WhereClocksDifferTimesAndCyclesMustAgree) {
  const std::vector<double> fast = {1980.0};
  const std::vector<double> slow(25, 1782.0);  // by a tenth
  const Report a = report_of({timing(around(9.0), fast), timing(around(9.0), fast),
                              timing(around(9.0), fast), timing(around(9.0), fast)});
  const Report b = report_of({timing(around(10.0), slow), timing(around(9.0), slow),
                              timing(around(12.0), slow), timing(around(9.0), {1975.0})});
  const auto verdicts = [&](ClockRule rule) {
    ComparisonOptions options;
    options.clock_rule = rule;
    std::vector<Verdict> out;
    for (const ComparedRow& row : compare(a, b, options).rows) out.push_back(row.verdict);
    return out;
  };
  using enum Verdict;
  EXPECT_EQ(verdicts(ClockRule::kBoth), (std::vector{kUnclear, kUnclear, kSlower, kSame}));
  EXPECT_EQ(verdicts(ClockRule::kCycles), (std::vector{kSame, kFaster, kSlower, kSame}));
  EXPECT_EQ(verdicts(ClockRule::kTime), (std::vector{kSlower, kSame, kSlower, kSame}));
  const Comparison both = compare(a, b);
  EXPECT_EQ(both.rows[0].reason, "clocks differ: times and cycles disagree");
  ASSERT_TRUE(both.rows[0].clocks);
  EXPECT_NEAR(both.rows[0].clocks->ratio_of_cycles, 1.0, 1e-9);
  EXPECT_LT(both.rows[0].interval->lo, 0.9);
  EXPECT_GT(both.rows[0].interval->hi, 1.0) << "the interval holds both";
  EXPECT_FALSE(both.rows[3].clocks) << "a clock that is the same is no reason";
}

TEST(Comparison, BaselinesSayWhatTheMachineDid) {
  SyntheticMachine::Noise still;
  still.between = still.common = 0.0;
  const SyntheticMachine machine(still);
  const Report a = machine.run(1);
  Report b = machine.run(2);
  Comparison comparison = compare(a, b);
  EXPECT_EQ(comparison.noise.controls, 60);
  EXPECT_EQ(comparison.noise.deviation, 0.003) << "never less than was asked for";
  EXPECT_NEAR(comparison.noise.control_ratio, 1.0, 0.002);
  for (ReportRow& row : b.rows) {
    for (double& time : row.baseline->timing.time_us) time *= 1.04;
  }
  comparison = compare(a, b);
  EXPECT_NEAR(comparison.noise.control_ratio, 1.0 / 1.04, 0.002);
  EXPECT_EQ(comparison.noise.deviation, 0.003) << "all alike is no noise";
  // No controls: another algorithm, another clock, another driver.
  for (std::size_t i = 0; i < 30; ++i) b.rows[i].baseline->detail = "algo=2";
  for (std::size_t i = 30; i < 50; ++i) {
    for (double& clock : b.rows[i].baseline->timing.clock_mhz) clock *= 0.9;
  }
  EXPECT_EQ(compare(a, b).noise.controls, 10);
  b.environment["driver"] = "2";
  EXPECT_EQ(compare(a, b).noise.controls, 0);
}

TEST(Comparison, RowsWithoutAPartnerAndEnvironmentsAreTold) {
  Report a = report_of({timing(around(1.0)), timing(around(1.0)), timing(around(1.0))}, "old");
  Report b = a;
  a.rows.erase(a.rows.begin());  // m 2, 3
  b.rows.pop_back();             // m 1, 2
  b.environment["commit"] = "new";
  b.environment["cuda"] = "13.0";  // a does not tell
  a.environment["source_hash"] = "abc";
  b.environment["source_hash"] = "";
  a.environment["mma_denormals"] = "null";
  b.environment["mma_denormals"] = "true";
  b.environment["date"] = "later";
  a.environment["date"] = "sooner";
  const Comparison comparison = compare(a, b);
  ASSERT_EQ(comparison.rows.size(), 1U);
  ASSERT_EQ(comparison.missing.size(), 1U);
  EXPECT_EQ(comparison.missing[0].m, 3);
  ASSERT_EQ(comparison.added.size(), 1U);
  EXPECT_EQ(comparison.added[0].m, 1);
  ASSERT_EQ(comparison.environment.size(), 1U);
  EXPECT_EQ(comparison.environment[0].key, "commit");
  EXPECT_EQ(comparison.environment[0].b, "new");
  const Comparison nothing = compare(report_of({}), b);
  EXPECT_TRUE(nothing.rows.empty());
  EXPECT_FALSE(nothing.all);
}

TEST(Comparison, MeansAreByProblemAndByBandOfTokens) {
  const SyntheticMachine machine;
  const Comparison comparison = compare(machine.run(5), machine.run(6));
  ASSERT_EQ(comparison.by_problem.size(), 6U);
  EXPECT_EQ(comparison.by_problem[0].name, "gemm_n4096_k512_g128_f16");
  EXPECT_EQ(comparison.by_problem[0].rows, 10);
  ASSERT_EQ(comparison.by_tokens.size(), 4U);
  EXPECT_EQ(comparison.by_tokens[0].name, "M 1-16");
  EXPECT_EQ(comparison.by_tokens[0].rows, 24);
  EXPECT_EQ(comparison.by_tokens[3].rows, 12);
  EXPECT_EQ(comparison.all->rows, 60);
  EXPECT_LT(comparison.all->interval->lo, comparison.all->ratio);
}

}  // namespace
}  // namespace w4tune

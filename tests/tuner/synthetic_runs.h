// Runs of a machine that is made up, as reports: the noise within a run, and what sets one run
// apart from the next. The sizes are those of two runs of the same cuBLASLt kernels on one H200
// (results/h200): a quartile range of 0.5 % within, a deviation of 0.2 to 0.3 % between.
#pragma once

#include <cmath>
#include <cstdint>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "core/stats.h"
#include "tuner/report_reader.h"

namespace w4tune {

class SyntheticMachine {
 public:
  struct Noise {
    double within = 0.0035;     // of one sample
    double drift = 0.001;       // from the first sample of a row to its last
    double spike_share = 0.04;  // samples that something else disturbed
    double between = 0.002;     // of a row from run to run
    double restless = 2.5;      // so much more of each twentieth row
    double common = 0.0015;     // of all rows of a run together
    double clock = 0.002;       // of the SM clock of a run
  };

  SyntheticMachine() : SyntheticMachine(Noise()) {}
  explicit SyntheticMachine(const Noise& noise) : noise_(noise) {}

  // 60 workloads of six problems. `slower`: index of a row -> its time is so many times as long.
  [[nodiscard]] Report run(std::uint64_t seed, const std::map<int, double>& slower = {}) const {
    std::mt19937_64 random(seed);
    Report report;
    report.name = "run " + std::to_string(seed);
    report.environment = {{"gpu", "Synthetic"}, {"driver", "1"}, {"protocol", "cold"}};
    const double common = normal(random, noise_.common);
    const double clock_mhz = 1755.0 * std::exp(normal(random, noise_.clock));
    int index = 0;
    for (const int k : {512, 1024, 2048, 4096, 8192, 16384}) {
      for (const int m : {1, 4, 8, 16, 32, 64, 128, 256, 512, 1024}) {
        const double between = noise_.between * (index % 20 == 7 ? noise_.restless : 1.0);
        const double truth = 2.0 + 1e-3 * k + 1e-5 * k * m;
        const auto found = slower.find(index);
        const double factor = found == slower.end() ? 1.0 : found->second;
        ReportRow row;
        row.workload = {{Op::kGemm, 4096, k, 128, Dtype::kF16}, m};
        row.config = "mma_pipe stages=4 | split_k=1 raster=1";
        row.timing = timing(random, truth * factor, common, between, clock_mhz);
        row.baseline = ReportBaseline{"cublaslt_f16", "algo=1",
                                      timing(random, 2.0 * truth, common, between, clock_mhz)};
        report.rows.push_back(std::move(row));
        ++index;
      }
    }
    return report;
  }

 private:
  static double normal(std::mt19937_64& random, double deviation) {
    return std::normal_distribution<double>(0.0, 1.0)(random) * deviation;
  }

  Timing timing(std::mt19937_64& random, double truth, double common, double between,
                double clock_mhz) const {
    constexpr int kSamples = 25;
    std::uniform_real_distribution<double> uniform(0.0, 1.0);
    const double shift = common + normal(random, between);
    Timing timing;
    for (int i = 0; i < kSamples; ++i) {
      double log = shift + normal(random, noise_.within) + noise_.drift * i / kSamples;
      if (uniform(random) < noise_.spike_share) log += 0.03 * uniform(random);
      timing.time_us.push_back(truth * std::exp(log));
      timing.clock_mhz.push_back(clock_mhz * std::exp(normal(random, 0.001)));
    }
    timing.time_us_median = median(timing.time_us);
    return timing;
  }

  Noise noise_;
};

}  // namespace w4tune

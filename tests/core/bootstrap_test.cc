#include "core/bootstrap.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>

#include "core/stats.h"

namespace w4tune {
namespace {

double total(const std::vector<WeightedValue>& atoms) {
  return std::accumulate(
      atoms.begin(), atoms.end(), 0.0,
      [](double sum, const WeightedValue& atom) { return sum + atom.probability; });
}

std::vector<double> normal_samples(std::mt19937_64& random, int count, double mean, double share) {
  std::normal_distribution<double> normal(mean, mean * share);
  std::vector<double> samples(static_cast<std::size_t>(count));
  for (double& sample : samples) sample = normal(random);
  return samples;
}

TEST(Bootstrap, OfThreeSamplesByHand) {
  // The median of three draws is the smallest if at least two are: 1/27 + 3 * 2/27.
  const auto atoms = bootstrap_median({3.0, 1.0, 2.0});
  ASSERT_EQ(atoms.size(), 3U);
  EXPECT_EQ(atoms[0].value, 1.0);
  EXPECT_NEAR(atoms[0].probability, 7.0 / 27.0, 1e-12);
  EXPECT_NEAR(atoms[1].probability, 13.0 / 27.0, 1e-12);
  EXPECT_NEAR(atoms[2].probability, 7.0 / 27.0, 1e-12);
}

TEST(Bootstrap, IsWhatResamplingTendsTo) {
  std::mt19937_64 random(7);
  const std::vector<double> samples = normal_samples(random, 25, 10.0, 0.05);
  const auto atoms = bootstrap_median(samples);
  std::uniform_int_distribution<std::size_t> index(0, samples.size() - 1);
  constexpr int kResamples = 20000;
  std::vector<double> medians;
  for (int r = 0; r < kResamples; ++r) {
    std::vector<double> draw;
    for (std::size_t i = 0; i < samples.size(); ++i) draw.push_back(samples[index(random)]);
    medians.push_back(median(draw));
  }
  double cumulated = 0.0;
  for (const auto& [value, probability] : atoms) {
    cumulated += probability;
    const auto below =
        std::count_if(medians.begin(), medians.end(), [&](double m) { return m <= value + 1e-12; });
    EXPECT_NEAR(static_cast<double>(below) / kResamples, cumulated, 0.012) << value;
  }
}

TEST(Bootstrap, ManySamplesBecomeFewValues) {
  std::mt19937_64 random(3);
  for (const int count : {1, 2, 24, 1000, 100000}) {
    const auto atoms = bootstrap_median(normal_samples(random, count, 10.0, 0.1));
    EXPECT_LE(atoms.size(), 65U) << count;
    EXPECT_NEAR(total(atoms), 1.0, 1e-12) << count;
    EXPECT_TRUE(std::is_sorted(
        atoms.begin(), atoms.end(),
        [](const WeightedValue& a, const WeightedValue& b) { return a.value < b.value; }));
  }
  // The standard error of a median of normal samples: 1.2533 sigma / sqrt(n).
  const std::vector<double> ten = normal_samples(random, 10000, 10.0, 0.1);
  const LogRatio ratio(ten, {10.0}, 0.0);
  EXPECT_NEAR(std::sqrt(ratio.variance()), 1.2533 * 0.1 / 100.0, 0.0002);
}

TEST(LogRatio, OfConstantsIsExact) {
  const LogRatio ratio({2.0, 2.0, 2.0}, {1.0, 1.0, 1.0}, 0.0);
  EXPECT_DOUBLE_EQ(ratio.estimate(), std::log(2.0));
  EXPECT_EQ(ratio.variance(), 0.0);
  EXPECT_EQ(ratio.at_least(0.69), 1.0);
  EXPECT_EQ(ratio.at_least(0.70), 0.0);
  EXPECT_NEAR(ratio.quantile(0.025), std::log(2.0), 1e-6);
}

TEST(LogRatio, ASharedErrorWidensAsANormalDistributionDoes) {
  const LogRatio ratio({1.0}, {1.0}, 0.01);
  EXPECT_NEAR(ratio.quantile(0.975), 0.0196, 1e-5);
  EXPECT_NEAR(ratio.quantile(0.025), -0.0196, 1e-5);
  EXPECT_NEAR(ratio.at_least(0.03), 0.00135, 1e-5) << "three deviations";
  EXPECT_NEAR(ratio.at_most(-0.06) / 9.866e-10, 1.0, 1e-3) << "the far tail is no difference of 1s";
}

// Of 1000 pairs of sample sets from one distribution, about 950 intervals hold the truth.
TEST(LogRatio, IntervalsCoverTheTruth) {
  for (const int count : {9, 12, 25}) {
    std::mt19937_64 random(static_cast<std::uint64_t>(count));
    int covered = 0;
    constexpr int kPairs = 1000;
    for (int i = 0; i < kPairs; ++i) {
      const LogRatio ratio(normal_samples(random, count, 10.3, 0.004),
                           normal_samples(random, count, 10.0, 0.004), 0.0);
      const double truth = std::log(1.03);
      covered += static_cast<int>(ratio.at_least(truth) > 0.025 && ratio.at_most(truth) > 0.025);
    }
    EXPECT_GE(covered, 930) << count;
    EXPECT_LE(covered, 985) << count;
  }
}

TEST(Bootstrap, NeedsPositiveSamples) {
  EXPECT_DEATH(bootstrap_median({}), "needs a sample");
  EXPECT_DEATH(LogRatio({1.0}, {0.0}, 0.0), "positive");
}

}  // namespace
}  // namespace w4tune

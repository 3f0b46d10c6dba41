#include "tuner/model_fit.h"

#include <gtest/gtest.h>

#include "templates/family.h"
#include "tests/tuner/sample_reports.h"

namespace w4tune {
namespace {

std::vector<Prediction> workload(const std::string& family, const std::vector<double>& predicted,
                                 const std::vector<double>& measured) {
  std::vector<Prediction> predictions;
  for (std::size_t i = 0; i < predicted.size(); ++i) {
    predictions.push_back({family, predicted[i], measured[i]});
  }
  return predictions;
}

TEST(ModelFit, RanksWithinWorkloadsAndWeighsThemByTheirTrials) {
  // Right in the first; wrong way round in the second, whose times are all larger: together they
  // would look well ranked.
  std::vector<double> small;
  std::vector<double> large;
  for (int i = 0; i < 30; ++i) small.push_back(1.0 + i);
  for (int i = 0; i < 10; ++i) large.push_back(1000.0 + i);
  const std::vector<double> reversed(large.rbegin(), large.rend());
  const std::vector<std::vector<Prediction>> workloads = {workload("mma_pipe", small, small),
                                                          workload("mma_pipe", large, reversed)};
  const ModelFits fits = model_fits(workloads);
  EXPECT_EQ(fits.all.workloads, 2U);
  EXPECT_EQ(fits.all.trials, 40U);
  EXPECT_DOUBLE_EQ(*fits.all.spearman, (30.0 - 10.0) / 40.0);
  EXPECT_DOUBLE_EQ(fits.all.top_recall, 30.0 / 40.0);
  EXPECT_DOUBLE_EQ(*fits.families.at("mma_pipe").spearman, *fits.all.spearman);
}

TEST(ModelFit, JudgesEachFamilyByItself) {
  // Each family is ranked well; one is thought too fast against the other.
  std::vector<Prediction> mixed = workload("gemv", {1, 2, 3, 4, 5}, {11, 12, 13, 14, 15});
  const auto other = workload("mma_reg", {6, 7, 8, 9, 10}, {1, 2, 3, 4, 5});
  mixed.insert(mixed.end(), other.begin(), other.end());
  const ModelFits fits = model_fits(std::vector<std::vector<Prediction>>{mixed});
  EXPECT_LT(*fits.all.spearman, 0.0);
  EXPECT_EQ(fits.all.top_recall, 0.0);
  EXPECT_DOUBLE_EQ(*fits.families.at("gemv").spearman, 1.0);
  EXPECT_DOUBLE_EQ(fits.families.at("mma_reg").top_recall, 1.0);
}

TEST(ModelFit, SaysNothingOfTooFewTrialsAndOfNone) {
  EXPECT_TRUE(describe(model_fits({})).empty());
  const std::vector<std::vector<Prediction>> few = {workload("gemv", {1, 2, 3, 4}, {1, 2, 3, 4}),
                                                    {}};
  const ModelFits fits = model_fits(few);
  EXPECT_EQ(fits.all.trials, 0U);
  EXPECT_TRUE(fits.families.empty());
  EXPECT_TRUE(describe(fits).empty());
}

TEST(ModelFit, IsToldInWords) {
  const std::vector<std::vector<Prediction>> workloads = {
      workload("gemv", {1, 2, 3, 4, 5}, {1, 2, 3, 4, 5}),
      workload("gemv", {1, 1, 1, 1, 1}, {1, 2, 3, 4, 5})};
  const auto lines = describe(model_fits(workloads));
  ASSERT_EQ(lines.size(), 2U);
  EXPECT_EQ(lines[0],
            "cost model: Spearman 1.00, top-1 % recall 100 % (share of the measured best 1 % that "
            "it had among its best 10 %), within workloads, 10 trials of 2");
  EXPECT_EQ(lines[1], "  gemv       Spearman 1.00, top-1 % recall 100 %, 10 trials of 2");
}

TEST(ModelFit, PredictsTrialsThatWorked) {
  const DeviceInfo device = find_known_device("a40")->info;
  Trial trial;
  trial.workload = {{Op::kGemm, 4096, 1024, 128, Dtype::kF16}, 10};
  trial.candidate = {
      parse_kernel_config("mma_reg row_tile=32 token_tile=16 depth_warps=8 blocks=2 ahead=2 "
                          "dequant=1"),
      {1, 1}};
  trial.outcome = Outcome::kOk;
  trial.time_us = {5.0, 4.0, 6.0};
  Trial failed = trial;
  failed.outcome = Outcome::kWrongResult;
  Trial unknown = trial;
  unknown.candidate.config.family = "of_a_later_version";
  const auto predictions = predictions_of(std::vector<Trial>{failed, trial, unknown}, device);
  ASSERT_EQ(predictions.size(), 1U);
  EXPECT_EQ(predictions[0].family, "mma_reg");
  EXPECT_EQ(predictions[0].measured_us, 5.0);
  EXPECT_DOUBLE_EQ(predictions[0].predicted_us,
                   find_family("mma_reg")->cost(trial.candidate, trial.workload, device).total_us);
}

}  // namespace
}  // namespace w4tune

#include "tuner/model_fit.h"

#include <fmt/format.h>

#include "core/stats.h"
#include "templates/family.h"

namespace w4tune {
namespace {

// Adds up what single workloads say.
class Mean {
 public:
  void add(const std::vector<Prediction>& predictions) {
    if (predictions.size() < ModelFit::kFewest) return;
    std::vector<double> predicted;
    std::vector<double> measured;
    for (const Prediction& prediction : predictions) {
      predicted.push_back(prediction.predicted_us);
      measured.push_back(prediction.measured_us);
    }
    const auto weight = static_cast<double>(predictions.size());
    ++fit_.workloads;
    fit_.trials += predictions.size();
    recall_ += weight * top_recall(predicted, measured, ModelFit::kBestShare, ModelFit::kInShare);
    const std::optional<double> correlation = spearman(predicted, measured);
    if (!correlation) return;
    correlation_ += weight * *correlation;
    correlated_ += weight;
  }

  [[nodiscard]] ModelFit fit() const {
    ModelFit fit = fit_;
    if (fit.trials > 0) fit.top_recall = recall_ / static_cast<double>(fit.trials);
    if (correlated_ > 0.0) fit.spearman = correlation_ / correlated_;
    return fit;
  }

 private:
  ModelFit fit_;
  double recall_ = 0.0;
  double correlation_ = 0.0;
  double correlated_ = 0.0;  // trials of workloads that have a correlation
};

std::string figures(const ModelFit& fit) {
  const std::string correlation =
      fit.spearman ? fmt::format("Spearman {:.2f}", *fit.spearman) : "Spearman unknown";
  return fmt::format("{}, top-1 % recall {:.0f} %", correlation, 100.0 * fit.top_recall);
}

}  // namespace

std::vector<Prediction> predictions_of(std::span<const Trial> trials, const DeviceInfo& device) {
  std::vector<Prediction> predictions;
  for (const Trial& trial : trials) {
    const Family* family = find_family(trial.candidate.config.family);
    if (trial.outcome != Outcome::kOk || family == nullptr) continue;
    predictions.push_back({trial.candidate.config.family,
                           family->cost(trial.candidate, trial.workload, device).total_us,
                           trial.time_us_median()});
  }
  return predictions;
}

ModelFits model_fits(std::span<const std::vector<Prediction>> workloads) {
  Mean all;
  std::map<std::string, Mean> families;
  for (const std::vector<Prediction>& workload : workloads) {
    all.add(workload);
    std::map<std::string, std::vector<Prediction>> by_family;
    for (const Prediction& prediction : workload)
      by_family[prediction.family].push_back(prediction);
    for (const auto& [family, predictions] : by_family) families[family].add(predictions);
  }
  ModelFits fits{all.fit(), {}};
  for (const auto& [family, mean] : families) {
    const ModelFit fit = mean.fit();
    if (fit.trials > 0) fits.families.emplace(family, fit);
  }
  return fits;
}

std::vector<std::string> describe(const ModelFits& fits) {
  if (fits.all.trials == 0) return {};
  std::vector<std::string> lines = {fmt::format(
      "cost model: {} (share of the measured best {:.0f} % that it had among its best {:.0f} %), "
      "within workloads, {} trials of {}",
      figures(fits.all), 100.0 * ModelFit::kBestShare, 100.0 * ModelFit::kInShare, fits.all.trials,
      fits.all.workloads)};
  for (const auto& [family, fit] : fits.families) {
    lines.push_back(fmt::format("  {:<10} {}, {} trials of {}", family, figures(fit), fit.trials,
                                fit.workloads));
  }
  return lines;
}

}  // namespace w4tune

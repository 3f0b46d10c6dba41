// ModelFit: how well the cost model had ranked what was then measured.
//
// Ranks mean something within a workload alone: over all workloads together any model would look
// good, because large problems take longer. So each figure is taken within each workload and the
// mean over workloads is given, weighted by their trials. They speak of what the search chose to
// measure, not of the whole space.
#pragma once

#include <cstddef>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/device_info.h"
#include "core/trial.h"

namespace w4tune {

// One trial that worked, with what the model said of it.
struct Prediction {
  std::string family;
  double predicted_us = 0.0;
  double measured_us = 0.0;
};

// The trials that worked of a workload, as the model sees them for `device`. Trials of families
// that this program does not know are left out.
std::vector<Prediction> predictions_of(std::span<const Trial> trials, const DeviceInfo& device);

struct ModelFit {
  static constexpr double kBestShare = 0.01;
  static constexpr double kInShare = 0.10;
  static constexpr std::size_t kFewest = 5;  // trials; fewer say nothing of a ranking

  std::size_t workloads = 0;  // with at least kFewest trials
  std::size_t trials = 0;     // of these workloads
  // Spearman's correlation of predicted and measured times; empty where either is all alike.
  std::optional<double> spearman;
  // Top-1 % recall: of the measured best 1 % of a workload's trials (rounded up, so at least one),
  // the share that is in the predicted best 10 % of them (rounded up).
  double top_recall = 0.0;
};

struct ModelFits {
  ModelFit all;
  // Of each family by itself, within what was measured of it.
  std::map<std::string, ModelFit> families;
};

// One element for each workload.
ModelFits model_fits(std::span<const std::vector<Prediction>> workloads);

// For people: a line for the run, then one for each family; none where nothing can be said.
std::vector<std::string> describe(const ModelFits& fits);

}  // namespace w4tune

// A cache file with searches of a made-up machine: the larger the parameters' distance from the
// best point, the slower; one trial in thirteen fails.
#pragma once

#include <array>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "tests/cache/samples.h"

namespace w4tune {

inline Trial sample_search_trial(const Workload& workload, int i) {
  constexpr std::array kFamilies = {"mma_pipe", "mma_tile", "gemv"};
  const std::string family = kFamilies[static_cast<std::size_t>(i % 7 == 0 ? 2 : i % 2)];
  auto digit = [left = i]() mutable {
    const int value = left % 10;
    left /= 10;
    return value;
  };
  Trial trial = samples::trial(16, workload.m);
  trial.workload = workload;
  trial.candidate.config.family = family;
  double slower = 0.0;
  trial.candidate.config.parameters.clear();
  for (const auto& [name, best] :
       {std::pair{"row_tile", 4}, {"token_tile", 2}, {"stages", 6}, {"ahead", 1}}) {
    const int value = (digit() * 3 + 7) % 10;
    trial.candidate.config.parameters.emplace_back(name, value);
    slower += std::abs(value - best) * (family == std::string("gemv") ? 0.2 : 0.07);
  }
  trial.candidate.schedule = {digit() + 1, 1};
  const double us = 27.0 * (1.0 + slower + 0.03 * trial.candidate.schedule.split_k);
  trial.time_us = {us * 0.99, us, us * 1.01};
  trial.clock_mhz = {1740.0, 1740.0, 1740.0};
  if (i % 13 == 5) {
    trial.outcome = Outcome::kWrongResult;
    trial.detail = "too far from the reference";
    trial.time_us.clear();
    trial.clock_mhz.clear();
  }
  return trial;
}

// `counts`: the trials of the searches at M = 16, 32, ...
inline void write_sample_searches(const std::string& path, const std::vector<int>& counts) {
  Store store = Store::open(path, Store::Mode::kReadWrite);
  const std::int64_t run = store.begin_run(samples::run_info());
  store.put_compilation(samples::config(), samples::compilation());
  std::vector<Winner> winners;
  int m = 16;
  for (const int count : counts) {
    const Workload workload{samples::problem(), m};
    for (int i = 0; i < count; ++i) store.put_trial(run, sample_search_trial(workload, i));
    store.put_baseline(run, workload, {"cublaslt_f16", "algo=1", {45.0, 45.1, 45.2}, {}});
    winners.push_back(samples::winner(m, Provenance::kMeasured));
    m *= 2;
  }
  store.put_winners(run, samples::problem(), winners);
}

}  // namespace w4tune

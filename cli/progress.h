// Progress of a tuning run on standard error: one line that rewrites itself on a terminal, plain
// lines elsewhere.
#pragma once

#include <chrono>
#include <string>

#include "cli/status_line.h"
#include "tuner/options.h"

namespace w4tune {

class Progress final : public TuneObserver {
 public:
  // `predicting`: times are the cost model's. `quiet`: warnings only.
  Progress(bool predicting, bool quiet);

  void on_phase(const std::string& what) override;
  void on_ceilings(const Ceilings& ceilings) override;
  void on_workload(std::size_t index, std::size_t total, const Workload& workload,
                   double floor_us) override;
  void on_candidate(const Trial& trial, int done, int planned, double best_us) override;
  void on_result(const WorkloadResult& result, const TuneResult& so_far) override;
  void on_warning(const std::string& message) override;

 private:
  [[nodiscard]] std::string eta() const;

  bool predicting_;
  bool quiet_;
  StatusLine line_;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  std::size_t index_ = 0;
  std::size_t total_ = 0;
  std::size_t resumed_ = 0;
  Workload workload_;
  double floor_us_ = 0.0;
  Problem printed_;  // whose header stands above the last row
};

}  // namespace w4tune

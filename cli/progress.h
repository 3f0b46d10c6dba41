// Progress of a tuning run on standard error: one line that rewrites itself on a terminal, plain
// lines elsewhere.
#pragma once

#include <chrono>
#include <string>

#include "tuner/options.h"

namespace w4tune {

class Progress final : public TuneObserver {
 public:
  // `predicting`: times are the cost model's. `quiet`: warnings only.
  Progress(bool predicting, bool quiet);
  ~Progress() override;

  void on_phase(const std::string& what) override;
  void on_ceilings(const Ceilings& ceilings) override;
  void on_workload(std::size_t index, std::size_t total, const Workload& workload,
                   double floor_us) override;
  void on_candidate(const Trial& trial, int done, int planned, double best_us) override;
  void on_result(const WorkloadResult& result, const TuneResult& so_far) override;
  void on_warning(const std::string& message) override;

 private:
  void status(const std::string& line);  // the line that rewrites itself
  void print(const std::string& line);   // a line that stays
  void clear();
  [[nodiscard]] std::string eta() const;

  bool predicting_;
  bool quiet_;
  bool terminal_;
  bool status_shown_ = false;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  std::chrono::steady_clock::time_point last_status_;
  std::size_t index_ = 0;
  std::size_t total_ = 0;
  std::size_t resumed_ = 0;
  Workload workload_;
  double floor_us_ = 0.0;
  Problem printed_;  // whose header stands above the last row
};

}  // namespace w4tune

// What tests of whole runs share: an observer that keeps what matters, and what a search begins
// with.
#pragma once

#include <string>
#include <vector>

#include "tuner/options.h"
#include "tuner/ranking.h"

namespace w4tune {

class Watcher final : public TuneObserver {
 public:
  void on_phase(const std::string& /*what*/) override {}
  void on_ceilings(const Ceilings& /*ceilings*/) override {}
  void on_workload(std::size_t /*index*/, std::size_t /*total*/, const Workload& /*workload*/,
                   double /*floor_us*/) override {}
  void on_candidate(const Trial& /*trial*/, int /*done*/, int /*planned*/,
                    double /*best_us*/) override {
    ++candidates;
  }
  void on_result(const WorkloadResult& /*result*/, const TuneResult& /*so_far*/) override {}
  void on_warning(const std::string& message) override { warnings.push_back(message); }

  int candidates = 0;
  std::vector<std::string> warnings;
};

// The candidates of a workload, likeliest first. `device` is as the run's probe finds it.
inline std::vector<Candidate> likeliest(const Workload& workload, const DeviceInfo& device,
                                        const std::vector<std::string>& families) {
  const Rankings rankings =
      rank_all({workload}, device, TuneOptions{}.max_workspace_bytes, 1, families)[0];
  std::vector<Candidate> candidates;
  for (const Choice& choice : by_prediction(rankings)) {
    candidates.push_back(candidate_at(rankings, choice));
  }
  return candidates;
}

}  // namespace w4tune

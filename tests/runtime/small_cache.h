// A cache tuned on the present GPU in seconds: for tests that dispatch. The one place of these
// tests that knows the tuner.
#pragma once

#include <algorithm>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "cache/store.h"
#include "gpu/device.h"
#include "tests/tuner/program.h"
#include "tuner/compiler.h"
#include "tuner/tune.h"

namespace w4tune::samples {

class SilentObserver : public TuneObserver {
 public:
  void on_phase(const std::string&) override {}
  void on_ceilings(const Ceilings&) override {}
  void on_workload(std::size_t, std::size_t, const Workload&, double) override {}
  void on_candidate(const Trial&, int, int, double) override {}
  void on_result(const WorkloadResult&, const TuneResult&) override {}
  void on_warning(const std::string&) override {}
};

// Tunes the problems at these M on GPU 0, with little care for speed. With a split_k other than 0
// all winners then give way to one small kernel that splits the depth through the workspace.
inline void tune_small_cache(const std::string& path, const std::vector<Problem>& problems,
                             const std::vector<int>& tokens, int split_k = 0) {
  TuneOptions options;
  options.plan.name = "small";
  for (const Problem& problem : problems) {
    for (const int m : tokens) options.plan.workloads.push_back({problem, m});
  }
  options.device = query_device(0);
  options.measuring_program = program_under_test();
  options.evaluations = 12;
  options.baseline = false;
  options.threads = static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
  options.protocol.cold_factor = 0.0;
  options.protocol.search_samples = 2;
  options.protocol.final_samples = 3;
  options.protocol.finalists = 2;
  Store store = Store::open(path, Store::Mode::kReadWrite);
  SilentObserver observer;
  if (tune_measured(options, store, observer).untuned() > 0) {
    throw std::runtime_error("the small plan was not tuned as a whole");
  }
  if (split_k == 0) return;
  const std::int64_t run = store.begin_run(describe_run(options, "forced"));
  Compiler compiler(arch_name(options.device.sm), "", 1, &store);
  for (Winner& winner : store.winners(options.device)) {
    winner.candidate = {
        parse_kernel_config("mma_pipe row_tile=64 token_tile=16 depth_tile=64 stages=2 row_warps=4 "
                            "token_warps=1 depth_warps=1 dequant=1 reduce=0 evict_first=0"),
        {split_k, 1}};
    winner.footprint = find_family("mma_pipe")->footprint(winner.candidate.config, winner.problem);
    winner.compilation_key = compiler.get(winner.candidate.config, winner.problem).key;
    store.put_winners(run, winner.problem, {winner});
  }
}

}  // namespace w4tune::samples

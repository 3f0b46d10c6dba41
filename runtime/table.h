// Table: the immutable heart of a Dispatcher, from (problem, m) to the kernel that serves it.
#pragma once

#include <cuda.h>

#include <cstddef>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "core/launch_plan.h"
#include "core/winner.h"
#include "w4tune/dispatcher.h"

namespace w4tune {

// A winner as it is launched.
struct TunedKernel {
  Problem problem;
  int m = 0;  // where it was tuned
  int m_lo = 0;
  int m_hi = 0;
  Match match_at_m = Match::kRefused;    // kExact, kSameArch or kPredicted
  Match match_nearby = Match::kRefused;  // at any other m
  Footprint footprint;
  Schedule schedule;
  bool is_default = false;  // serves any N and K; problem and schedule are examples
  std::string config;
  std::string compilation_key;
  double time_us_median = 0.0;
  double floor_us = 0.0;
  double baseline_us = 0.0;
  // Serves in place of the kernel; what its file says of it, where it is admitted.
  std::optional<Composite> composite;
  CUfunction function = nullptr;  // nullptr: loaded for looking only
};

// What a launch may need of the workspace.
struct WorkspaceNeed {
  std::size_t partial_bytes = 0;
  std::size_t counter_count = 0;
};

class Table {
 public:
  // `is_same_gpu`: the winners are of the very GPU that they serve. `defaults` serve any N and K
  // whose op, dtype and group they have (one scale for each output is a group of its own kind).
  // Composites whose scratch has at most `max_scratch_bytes` serve in place of their kernels, from
  // kLeastCompositeTokens on.
  // Throws Error{kDatabase} for a winner that no tuner could have written.
  Table(std::vector<Winner> winners, bool is_same_gpu, std::vector<Winner> defaults = {},
        std::size_t max_scratch_bytes = std::numeric_limits<std::size_t>::max());

  // As Dispatcher::select.
  [[nodiscard]] Selection select(const Problem& problem, int m) const noexcept;

  // Whether `kernel` is one of this table's.
  [[nodiscard]] bool owns(const TunedKernel* kernel) const noexcept;

  // Sorted by problem and m, defaults last. Selections stay valid while functions are filled in.
  [[nodiscard]] const std::vector<TunedKernel>& kernels() const { return kernels_; }
  [[nodiscard]] std::vector<TunedKernel>& kernels() { return kernels_; }

  // The largest need of any kernel at the largest M it was tuned for, and of the defaults on a GPU
  // of `sm_count` SMs.
  [[nodiscard]] WorkspaceNeed workspace_need(int sm_count) const;
  // The largest scratch of any composite that serves; 0 where none does.
  [[nodiscard]] std::size_t scratch_bytes() const;

 private:
  struct Range {
    Problem problem;
    std::size_t begin = 0;  // into kernels_
    std::size_t end = 0;
  };

  [[nodiscard]] Selection select_from(const Range& range, const Problem& problem,
                                      int m) const noexcept;

  std::vector<Range> ranges_;    // sorted by problem
  std::vector<Range> defaults_;  // sorted by problem, which is default_key()
  std::vector<int> m_hi_;        // of kernels_: what the search walks through
  std::vector<TunedKernel> kernels_;
};

// Largest M whose one-dimensional grid the GPU takes.
int max_tokens(const Footprint& footprint, const Problem& problem, int split_k);

// The problem with what a default kernel does not depend on left out: n and k are 0, and so is a
// group that is all of k.
Problem default_key(const Problem& problem);

// What `kernel` computes for a Selection of these n and k: its own problem, or, as a default
// kernel, that of n and k. Throws Error{kInvalidArgument} for sizes that no kernel serves.
Problem served_problem(const TunedKernel& kernel, int n, int k);

// How a default kernel splits the depth: as few ways as give each SM a CTA, if there is that much
// depth.
Schedule default_schedule(const Footprint& footprint, const Problem& problem, int m, int sm_count);

// The plan of a launch of `schedule` whose workspace holds `available`: split_k is lowered until it
// fits.
LaunchPlan fit_launch_plan(const Footprint& footprint, const Problem& problem, int m,
                           const Schedule& schedule, const WorkspaceNeed& available, int sm_count);

}  // namespace w4tune

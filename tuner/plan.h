// Plan: the workloads of one run, in the order they are tuned.
#pragma once

#include <string>
#include <vector>

#include "core/problem.h"

namespace w4tune {

struct Plan {
  std::string name;  // "pi05", or the file it came from
  std::vector<Workload> workloads;
};

// What the command line may override; empty means the model's own.
struct PlanOverrides {
  std::vector<int> m;
  std::vector<std::pair<int, int>> shapes;  // (n, k)
  std::vector<Op> ops;
  int group_size = 0;  // 0: 128; -1: one scale per output
  std::string dtype;   // "": f16
};

// The tokens a Pi0.5 serves and what lies between: action expert 10, 15, 16, 50; prefill 712, 816,
// 968; batches of them.
std::vector<int> default_m();

// The plan of a model by name; "pi05" is the one known: four gemm and two geglu shapes. Throws
// Error{kInvalidArgument} otherwise.
Plan model_plan(const std::string& model, const PlanOverrides& overrides);

// A plan file: {"workloads": [{"op": "gemm", "n": 4096, "k": 1024, "group": 128, "dtype": "f16",
// "m": [1, 10]}, ...]}; op, group and dtype may be left out. Throws Error{kNotFound} when the file
// can't be read and Error{kInvalidArgument} naming the entry that does not fit.
Plan read_plan(const std::string& path);

// What tuning a workload is expected to take beside the others: the same for each, because
// compiling does not depend on M, and more in proportion to the time of a launch. No GPU's figures
// enter, so every machine has the same costs.
double tuning_cost(const Workload& workload);

// The length of the first part of workloads [first, last), which go on after it, that costs about
// `share` of the costs of them all, 0 < share <= 1: at least one. The end lies between two problems
// where one lies within a tenth of the part from where it would lie else, because the Ms of one
// problem start from each other's winners; else between two Ms of a problem.
std::size_t leading_part(const std::vector<Workload>& workloads, std::size_t first,
                         std::size_t last, double share);

// Part `index` of `count`, from 1: a stretch of the plan. The parts of one plan cost about the
// same, have no workload in common, and are the whole plan together; every machine divides it
// alike. Throws Error{kInvalidArgument} where there are more parts than workloads.
Plan shard_of(const Plan& plan, int index, int count);

// The distinct problems of a plan, in order.
std::vector<Problem> problems_of(const Plan& plan);
// The tuned M of one problem, ascending.
std::vector<int> tokens_of(const Plan& plan, const Problem& problem);

}  // namespace w4tune

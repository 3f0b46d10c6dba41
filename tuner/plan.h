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

// The distinct problems of a plan, in order.
std::vector<Problem> problems_of(const Plan& plan);
// The tuned M of one problem, ascending.
std::vector<int> tokens_of(const Plan& plan, const Problem& problem);

}  // namespace w4tune

#include "tuner/plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>

#include "w4tune/error.h"

namespace w4tune {
namespace {

constexpr int kMaxTokens = 1 << 20;

[[noreturn]] void invalid(const std::string& message) {
  throw Error(ErrorCode::kInvalidArgument, message);
}

void check_tokens(int m, const std::string& where) {
  if (m < 1 || m > kMaxTokens) {
    invalid(fmt::format("{}: M = {} must be from 1 to {}.", where, m, kMaxTokens));
  }
}

void add(Plan& plan, const Problem& problem, std::vector<int> tokens, const std::string& where) {
  validate(problem);
  std::sort(tokens.begin(), tokens.end());
  for (const int m : tokens) {
    check_tokens(m, where);
    const Workload workload{problem, m};
    if (std::find(plan.workloads.begin(), plan.workloads.end(), workload) == plan.workloads.end()) {
      plan.workloads.push_back(workload);
    }
  }
}

int group_size_for(int group, int k) { return group == 0 ? 128 : group < 0 ? k : group; }

// One entry of a plan file.
void add_entry(Plan& plan, const nlohmann::json& entry, const std::string& where) {
  static const std::vector<std::string> known = {"op", "n", "k", "group", "dtype", "m"};
  if (!entry.is_object()) invalid(where + ": expected an object with n, k and m.");
  for (const auto& [key, value] : entry.items()) {
    if (std::find(known.begin(), known.end(), key) == known.end()) {
      invalid(fmt::format("{}: '{}' is not known. Use op, n, k, group, dtype, m.", where, key));
    }
  }
  Problem problem;
  problem.op = parse_op(entry.value("op", "gemm"));
  problem.n = entry.at("n").get<int>();
  problem.k = entry.at("k").get<int>();
  problem.group_size = group_size_for(entry.value("group", 0), problem.k);
  problem.dtype = parse_dtype(entry.value("dtype", "f16"));
  const auto& m = entry.contains("m") ? entry.at("m") : nlohmann::json(default_m());
  add(plan, problem, m.is_array() ? m.get<std::vector<int>>() : std::vector<int>{m.get<int>()},
      where);
}

struct Layer {
  Op op;
  int n;
  int k;
};

// The MLPs of the language model (width 2048) and of the action expert (width 1024): gate or up,
// down, gate and up fused. Shapes of one's own are plain products unless ops are asked for.
std::vector<Layer> layers_of(const PlanOverrides& overrides) {
  if (overrides.shapes.empty()) {
    return {{Op::kGemm, 16384, 2048}, {Op::kGemm, 2048, 16384},  {Op::kGemm, 4096, 1024},
            {Op::kGemm, 1024, 4096},  {Op::kGeglu, 16384, 2048}, {Op::kGeglu, 4096, 1024}};
  }
  const std::vector<Op> ops = overrides.ops.empty() ? std::vector<Op>{Op::kGemm} : overrides.ops;
  std::vector<Layer> layers;
  for (const Op op : ops) {
    for (const auto& [n, k] : overrides.shapes) layers.push_back({op, n, k});
  }
  return layers;
}

}  // namespace

std::vector<int> default_m() {
  return {1, 2, 4, 8, 10, 15, 16, 20, 32, 50, 64, 100, 128, 256, 512, 712, 816, 968, 1024};
}

Plan model_plan(const std::string& model, const PlanOverrides& overrides) {
  if (model != "pi05")
    invalid(fmt::format("model '{}' is not known. Use pi05, or --plan FILE.", model));
  const auto is_asked = [&](Op op) {
    return std::find(overrides.ops.begin(), overrides.ops.end(), op) != overrides.ops.end();
  };
  Plan plan{model, {}};
  for (const auto& [op, n, k] : layers_of(overrides)) {
    if (!overrides.ops.empty() && !is_asked(op)) continue;
    Problem problem{op, n, k, group_size_for(overrides.group_size, k), Dtype::kF16};
    if (!overrides.dtype.empty()) problem.dtype = parse_dtype(overrides.dtype);
    add(plan, problem, overrides.m.empty() ? default_m() : overrides.m, "--m");
  }
  return plan;
}

Plan read_plan(const std::string& path) {
  std::ifstream stream(path);
  if (!stream) {
    throw Error(ErrorCode::kNotFound,
                fmt::format("plan {} can't be read. Check the path given to --plan.", path));
  }
  Plan plan{path, {}};
  std::size_t index = 0;
  try {
    const auto json = nlohmann::json::parse(stream);
    for (const auto& entry : json.at("workloads")) {
      add_entry(plan, entry, fmt::format("plan {}, workload {}", path, index));
      ++index;
    }
  } catch (const nlohmann::json::parse_error& error) {
    invalid(fmt::format("plan {} is not JSON: {}.", path, error.what()));
  } catch (const nlohmann::json::exception& error) {
    invalid(
        fmt::format("plan {}, workload {}: {}. Expected {{\"workloads\": [{{\"n\": 4096, \"k\": "
                    "1024, \"m\": [1, 10]}}]}}.",
                    path, index, error.what()));
  }
  if (plan.workloads.empty()) invalid(fmt::format("plan {} has no workloads.", path));
  return plan;
}

std::vector<Problem> problems_of(const Plan& plan) {
  std::vector<Problem> problems;
  for (const Workload& workload : plan.workloads) {
    if (std::find(problems.begin(), problems.end(), workload.problem) == problems.end()) {
      problems.push_back(workload.problem);
    }
  }
  return problems;
}

std::vector<int> tokens_of(const Plan& plan, const Problem& problem) {
  std::vector<int> tokens;
  for (const Workload& workload : plan.workloads) {
    if (workload.problem == problem) tokens.push_back(workload.m);
  }
  std::sort(tokens.begin(), tokens.end());
  return tokens;
}

}  // namespace w4tune

#include "tuner/plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>

#include "core/check.h"
#include "templates/cost.h"
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

double tuning_cost(const Workload& workload) {
  // A middling GPU's figures. At 100 us a launch, measuring costs about as much as the rest.
  constexpr double kGbps = 1500.0;
  constexpr double kTflops = 300.0;
  constexpr double kEvenUs = 100.0;
  return 1.0 + floor_us(workload, kGbps, kTflops) / kEvenUs;
}

std::size_t leading_part(const std::vector<Workload>& workloads, std::size_t first,
                         std::size_t last, double share) {
  double total = 0.0;
  for (std::size_t i = first; i < last; ++i) total += tuning_cost(workloads[i]);
  const double wanted = share * total;
  // The end that is nearest, and the nearest one between two problems.
  std::size_t best = first + 1;
  std::optional<std::size_t> between;
  double best_miss = std::numeric_limits<double>::infinity();
  double between_miss = 0.1 * wanted;
  double cost = 0.0;
  for (std::size_t end = first + 1; end <= last; ++end) {
    cost += tuning_cost(workloads[end - 1]);
    const double miss = std::abs(cost - wanted);
    if (miss < best_miss) {
      best_miss = miss;
      best = end;
    }
    const bool parts = end == last || workloads[end].problem != workloads[end - 1].problem;
    if (parts && miss <= between_miss) {
      between_miss = miss;
      between = end;
    }
  }
  return between.value_or(best) - first;
}

Plan shard_of(const Plan& plan, int index, int count) {
  const auto& workloads = plan.workloads;
  W4_CHECK(index >= 1 && index <= count, "a shard is numbered from 1 to the number of shards");
  if (static_cast<std::size_t>(count) > workloads.size()) {
    invalid(fmt::format("--shard {}/{}: the plan has {} workloads, so at most {} shards.", index,
                        count, workloads.size(), workloads.size()));
  }
  Plan shard{plan.name, {}};
  std::size_t first = 0;
  for (int part = 1; part <= index; ++part) {
    const auto parts_left = static_cast<std::size_t>(count - part + 1);
    const std::size_t length = std::min(
        leading_part(workloads, first, workloads.size(), 1.0 / static_cast<double>(parts_left)),
        workloads.size() - first - (parts_left - 1));  // one workload at least for each
    if (part == index) {
      const auto begin = workloads.begin() + static_cast<std::ptrdiff_t>(first);
      shard.workloads.assign(begin, begin + static_cast<std::ptrdiff_t>(length));
    }
    first += length;
  }
  return shard;
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

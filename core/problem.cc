#include "core/problem.h"

#include <fmt/format.h>

#include <charconv>
#include <vector>

#include "w4tune/error.h"

namespace w4tune {
namespace {

[[noreturn]] void invalid(const std::string& message) {
  throw Error(ErrorCode::kInvalidArgument, message);
}

std::vector<std::string_view> split(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  while (true) {
    const auto at = text.find(separator);
    parts.push_back(text.substr(0, at));
    if (at == std::string_view::npos) return parts;
    text.remove_prefix(at + 1);
  }
}

int parse_field(std::string_view field, char prefix, std::string_view whole) {
  int value = 0;
  const bool tagged = !field.empty() && field.front() == prefix;
  if (tagged) {
    const auto* end = field.data() + field.size();
    const auto result = std::from_chars(field.data() + 1, end, value);
    if (result.ec == std::errc{} && result.ptr == end) return value;
  }
  invalid(
      fmt::format("problem '{}': expected {}<number> in place of '{}'. "
                  "Write it like gemm_n16384_k2048_g128_f16.",
                  whole, prefix, field));
}

}  // namespace

std::string_view to_string(Op op) { return op == Op::kGemm ? "gemm" : "geglu"; }

std::string_view to_string(Dtype dtype) { return dtype == Dtype::kF16 ? "f16" : "bf16"; }

std::string_view to_string(Match match) {
  switch (match) {
    case Match::kExact: return "exact";
    case Match::kInterpolatedM: return "interpolated_m";
    case Match::kSameArch: return "same_arch";
    case Match::kPredicted: return "predicted";
    case Match::kDefault: return "default";
    case Match::kRefused: return "refused";
  }
  return "refused";
}

std::string to_string(const Problem& problem) {
  return fmt::format("{}_n{}_k{}_g{}_{}", to_string(problem.op), problem.n, problem.k,
                     problem.group_size, to_string(problem.dtype));
}

std::string to_string(const Workload& workload) {
  return fmt::format("{} m={}", to_string(workload.problem), workload.m);
}

Op parse_op(std::string_view text) {
  if (text == "gemm") return Op::kGemm;
  if (text == "geglu") return Op::kGeglu;
  invalid(fmt::format("op '{}' is not known. Use gemm or geglu.", text));
}

Dtype parse_dtype(std::string_view text) {
  if (text == "f16") return Dtype::kF16;
  if (text == "bf16") return Dtype::kBF16;
  invalid(fmt::format("dtype '{}' is not known. Use f16 or bf16.", text));
}

Problem parse_problem(std::string_view text) {
  const auto parts = split(text, '_');
  if (parts.size() != 5) {
    invalid(
        fmt::format("problem '{}' has {} parts in place of 5. "
                    "Write it like gemm_n16384_k2048_g128_f16.",
                    text, parts.size()));
  }
  Problem problem;
  problem.op = parse_op(parts[0]);
  problem.n = parse_field(parts[1], 'n', text);
  problem.k = parse_field(parts[2], 'k', text);
  problem.group_size = parse_field(parts[3], 'g', text);
  problem.dtype = parse_dtype(parts[4]);
  validate(problem);
  return problem;
}

void validate(const Problem& problem) {
  constexpr int kMaxDimension = 1 << 20;
  const std::string name = to_string(problem);
  const auto& [op, n, k, group, dtype] = problem;
  if (n < 16 || n % 16 != 0 || n > kMaxDimension) {
    invalid(
        fmt::format("{}: N = {} must be a multiple of 16 from 16 to {}.", name, n, kMaxDimension));
  }
  if (k < 64 || k % 64 != 0 || k > kMaxDimension) {
    invalid(
        fmt::format("{}: K = {} must be a multiple of 64 from 64 to {}.", name, k, kMaxDimension));
  }
  if (group != 32 && group != 64 && group != 128 && group != k) {
    invalid(fmt::format("{}: group size {} must be 32, 64, 128 or K (one scale per output).", name,
                        group));
  }
  if (k % group != 0) {
    invalid(fmt::format("{}: K = {} must be a multiple of the group size {}.", name, k, group));
  }
}

int weight_rows(const Problem& problem) {
  return problem.op == Op::kGeglu ? 2 * problem.n : problem.n;
}

int num_groups(const Problem& problem) { return problem.k / problem.group_size; }

std::size_t weight_bytes(const Problem& problem) {
  return static_cast<std::size_t>(weight_rows(problem)) * static_cast<std::size_t>(problem.k) / 2;
}

std::size_t scale_bytes(const Problem& problem) {
  return static_cast<std::size_t>(weight_rows(problem)) *
         static_cast<std::size_t>(num_groups(problem)) * 2;
}

double bytes_moved(const Workload& workload) {
  const Problem& p = workload.problem;
  const double activations = 2.0 * workload.m * (static_cast<double>(p.k) + p.n);
  return static_cast<double>(weight_bytes(p)) + static_cast<double>(scale_bytes(p)) + activations;
}

double operations(const Workload& workload) {
  const Problem& p = workload.problem;
  return 2.0 * workload.m * static_cast<double>(weight_rows(p)) * p.k;
}

}  // namespace w4tune

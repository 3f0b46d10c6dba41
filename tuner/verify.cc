#include "tuner/verify.h"

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

#include "core/half.h"

namespace w4tune {
namespace {

// Mirrors w4::Sums in templates/device/utility.cu.
struct Sums {
  double product = 0.0;
  float abs = 0.0F;
  float squares = 0.0F;
  float scaled = 0.0F;
};

// Mirrors w4::Bounds there.
struct Bounds {
  float output_roundoff = 0.0F;
  float tiny = 0.0F;
  float abs_factor = 0.0F;
  float scaled_factor = 0.0F;
  float squares_factor = 0.0F;
  float gelu_factor = 0.0F;
};

Bounds bounds_of(Dtype dtype, int dequant) {
  const double u = unit_roundoff(dtype);
  Bounds bounds;
  bounds.output_roundoff = static_cast<float>(u);
  bounds.tiny = dtype == Dtype::kF16 ? 0x1p-24F : 0x1p-133F;
  // Every mode accumulates in FP32; D0 rounds each weight after its scale as well.
  bounds.abs_factor = 0x1p-22F;
  // D2den sums over u = w + 8, up to |w| + 8, and subtracts 8 times the sums of x, as inexact; D4
  // subtracts two such sums, one 16 times larger (docs/kernels.md, "Error bounds").
  bounds.scaled_factor = dequant == 2 ? 16.0F * 0x1p-22F : dequant == 3 ? 24.0F * 0x1p-22F : 0.0F;
  bounds.squares_factor = static_cast<float>(dequant == 0 ? 4.0 * u : 0.0);
  bounds.gelu_factor = 0x1p-21F;  // templates/device/gelu.cuh
  return bounds;
}

// Mirrors w4::Verdict in templates/device/utility.cu.
struct Verdict {
  std::uint32_t worst_ratio_bits = 0;
  std::uint32_t max_abs_bits = 0;
  double error_sq = 0.0;
  double ref_sq = 0.0;
  std::uint64_t fence_touched = 0;
};

constexpr int kTile = 16;  // of the reference kernel
constexpr std::uint32_t kThreads = 256;
constexpr std::uint32_t kJudgeBlocks = 1024;

}  // namespace

Verifier::Verifier(const UtilityKernels& utilities, const Operands& operands, const Stream& stream)
    : utilities_(utilities), operands_(operands), stream_(stream), verdict_(sizeof(Verdict)) {
  const Problem& problem = operands.problem();
  int rows = weight_rows(problem);
  const auto elements = static_cast<std::size_t>(operands.max_m()) * static_cast<std::size_t>(rows);
  sums_ = Buffer(elements * sizeof(Sums));
  const bool f16 = problem.dtype == Dtype::kF16;
  const auto* x = operands.x().as<void>();
  const auto* nibbles = operands.nibbles().as<void>();
  const auto* scales = operands.scales().as<void>();
  auto* sums = sums_.as<Sums>();
  int m = operands.max_m();
  int k = problem.k;
  int group = problem.group_size;
  void* params[] = {&x, &nibbles, &scales, &sums, &m, &rows, &k, &group};
  const int tiles = rows / kTile * ((m + kTile - 1) / kTile);
  launch(utilities.function(f16 ? "w4_reference_f16" : "w4_reference_bf16"),
         static_cast<std::uint32_t>(tiles), kTile * kTile, 0, stream.handle(), params);
  stream.synchronize();
}

ErrorMetrics Verifier::judge(int m, int dequant) const {
  const Problem& problem = operands_.problem();
  const bool f16 = problem.dtype == Dtype::kF16;
  verdict_.fill(0);
  const auto* y = operands_.y();
  const auto* sums = sums_.as<Sums>();
  auto* verdict = verdict_.as<Verdict>();
  int n = problem.n;
  int geglu = problem.op == Op::kGeglu ? 1 : 0;
  Bounds bounds = bounds_of(problem.dtype, dequant);
  void* params[] = {&y, &sums, &verdict, &m, &n, &geglu, &bounds};
  launch(utilities_.function(f16 ? "w4_judge_f16" : "w4_judge_bf16"), kJudgeBlocks, kThreads, 0,
         stream_.handle(), params);
  int fence_count = Operands::kFenceElements;
  int canary = Operands::kCanary;
  // Rows of y past m must still hold their poison, where there are any.
  const auto count = static_cast<std::size_t>(m) * static_cast<std::size_t>(n);
  const auto* after = m < operands_.max_m() ? y + count : operands_.fence_after();
  for (const std::uint16_t* fence : {operands_.fence_before(), after}) {
    void* fence_params[] = {&fence, &verdict, &fence_count, &canary};
    launch(utilities_.function("w4_check_fence"), 1, kThreads, 0, stream_.handle(), fence_params);
  }
  stream_.synchronize();
  Verdict found;
  verdict_.download(&found, sizeof(found));
  ErrorMetrics error;
  error.worst_ratio = std::bit_cast<float>(found.worst_ratio_bits);
  error.max_abs = std::bit_cast<float>(found.max_abs_bits);
  error.relative_norm = found.ref_sq > 0.0 ? std::sqrt(found.error_sq / found.ref_sq) : 0.0;
  if (found.fence_touched > 0) error.worst_ratio = std::numeric_limits<double>::infinity();
  return error;
}

}  // namespace w4tune

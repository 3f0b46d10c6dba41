// Composite: dequant_cublas, the other way to compute a Workload. Slices of the weight's rows are
// dequantised into a scratch and multiplied by cuBLASLt; geglu's activation follows each slice.
//
// It stands beside a winner and never replaces it: a runtime without cuBLASLt, or with too little
// scratch, serves the winner's kernel.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "core/problem.h"

namespace w4tune {

struct Composite {
  int slice_rows = 0;  // weight rows dequantised at a time; the last slice may be shorter
  std::size_t scratch_bytes = 0;  // slice_scratch(...).total() at the M it was tuned for
  double time_us_median = 0.0;
  std::vector<double> time_us;  // samples of the final run, interleaved with the kernels'
  double error_worst_ratio = 0.0;

  bool operator==(const Composite&) const = default;
};

// "dequant_cublas slice_rows=4096"
std::string to_string(const Composite& composite);

// What serves, with its scratch, and the kernel that serves without it:
// "dequant_cublas slice_rows=4096, 36.0 MB of scratch; without it 40.00 us by mma_tile ..."
std::string composite_text(std::string_view composite, double scratch_bytes, double kernel_us,
                           std::string_view kernel);

// A slice is whole tiles of layout L0.
inline constexpr int kSliceUnit = 16;
// What cuBLASLt may use beside its operands: tuner and runtime ask its heuristic with this limit.
inline constexpr std::size_t kMatmulWorkspaceBytes = std::size_t{4} << 20;
// Below, reading INT4 once is so much less than reading FP16 that no composite can win.
inline constexpr int kLeastCompositeTokens = 64;

// Parts of the scratch, in this order, each a multiple of 256 bytes.
struct SliceScratch {
  std::size_t weight_bytes = 0;   // the dequantised slice
  std::size_t product_bytes = 0;  // geglu: x times the slice, for `tokens`; else 0
  std::size_t matmul_bytes = 0;   // cuBLASLt's own

  [[nodiscard]] std::size_t total() const { return weight_bytes + product_bytes + matmul_bytes; }
};
SliceScratch slice_scratch(const Problem& problem, int slice_rows, int tokens);

// The slices worth measuring at this many tokens, smallest first: one that keeps the dequantised
// slice in half of the L2, the largest whose scratch `limit_bytes` admits, and all rows where they
// fit. Slices of one size are even. `left_out` says why there are none.
struct SlicePlan {
  std::vector<int> slice_rows;
  std::string left_out;
};
SlicePlan plan_slices(const Workload& workload, std::size_t limit_bytes, std::size_t l2_bytes);

}  // namespace w4tune

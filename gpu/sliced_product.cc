#include "gpu/sliced_product.h"

#include <algorithm>

#include "gpu/graph.h"
#include "gpu/module.h"

namespace w4tune {
namespace {

constexpr std::size_t kMaxStriding = 4096;  // CTAs; kernels that stride do the rest
constexpr std::uint32_t kAlignment = 16;    // of the caller's rows, and of a slice's place in y

template <class T>
T* advanced(T* pointer, std::int64_t bytes) {
  using Byte = std::conditional_t<std::is_const_v<T>, const char, char>;
  return static_cast<Byte*>(pointer) + bytes;
}

}  // namespace

std::uint32_t striding_grid(std::size_t threads) {
  return static_cast<std::uint32_t>(
      std::min((threads + kUtilityThreads - 1) / kUtilityThreads, kMaxStriding));
}

SlicedProduct::SlicedProduct(const Problem& problem, int slice_rows, int block, int m,
                             std::int64_t ldx, std::int64_t ldy)
    : problem_(problem),
      slice_rows_(slice_rows),
      block_(std::min(block, m)),
      m_(m),
      ldx_(ldx),
      ldy_(ldy) {
  const int all = weight_rows(problem);
  // Full and last slice, full and last block of tokens.
  for (const int rows : {std::min(slice_rows, all), all % slice_rows}) {
    for (const int tokens : {block_, m % block_}) {
      if (rows == 0 || tokens == 0 || gemms_.count({rows, tokens}) > 0) continue;
      gemms_.emplace(std::pair{rows, tokens},
                     CublasLtGemm({.m = tokens,
                                   .n = rows,
                                   .k = problem.k,
                                   .dtype = problem.dtype,
                                   .ldx = ldx,
                                   .ldy = problem.op == Op::kGeglu ? rows : ldy,
                                   .alignment = kAlignment,
                                   .workspace_bytes = kMatmulWorkspaceBytes}));
    }
  }
}

void SlicedProduct::run(const SliceKernels& kernels, const w4::GemmArgs& args, void* scratch,
                        CUstream stream) const {
  const RelaxedCapture relaxed;  // cuBLASLt may load a kernel at its first use
  const bool geglu = problem_.op == Op::kGeglu;
  const SliceScratch parts = slice_scratch(problem_, slice_rows_, block_);
  void* const weight = scratch;
  void* const product = advanced(weight, static_cast<std::int64_t>(parts.weight_bytes));
  void* const matmul = advanced(product, static_cast<std::int64_t>(parts.product_bytes));
  const int all = weight_rows(problem_);
  for (int row = 0; row < all; row += slice_rows_) {
    const int rows = std::min(slice_rows_, all - row);
    dequantize_slice(kernels, args, row, rows, weight, stream);
    // A slice of geglu's rows makes half as many outputs.
    const int column = geglu ? row / 2 : row;
    for (int token = 0; token < m_; token += block_) {
      const int tokens = std::min(block_, m_ - token);
      void* const y = advanced(args.y, 2 * (token * ldy_ + column));
      gemms_.at({rows, tokens})
          .run(0, advanced(args.x, 2 * token * ldx_), weight, geglu ? product : y, matmul, stream);
      if (geglu) activate_slice(kernels, product, y, tokens, rows / 2, stream);
    }
  }
}

// The rows of a slice are a packed weight of their own; geglu's come out as gate, then up.
void SlicedProduct::dequantize_slice(const SliceKernels& kernels, const w4::GemmArgs& args,
                                     int row_begin, int rows, void* weight, CUstream stream) const {
  const void* packed = advanced(args.w, static_cast<std::int64_t>(row_begin) * problem_.k / 2);
  int groups = num_groups(problem_);
  const void* scales = advanced(args.scales, static_cast<std::int64_t>(row_begin) * groups * 2);
  int geglu = problem_.op == Op::kGeglu ? 1 : 0;
  int n = geglu != 0 ? rows / 2 : rows;
  int k = problem_.k;
  void* params[] = {&packed, &scales, &weight, &rows, &n, &k, &groups, &geglu};
  // A lane for 32 weights.
  const auto weights = static_cast<std::size_t>(rows) * static_cast<std::size_t>(k);
  launch(kernels.dequantize, striding_grid(weights / 32), kUtilityThreads, 0, stream, params);
}

void SlicedProduct::activate_slice(const SliceKernels& kernels, void* product, void* y, int tokens,
                                   int width, CUstream stream) const {
  long long ldy = ldy_;
  void* params[] = {&product, &y, &tokens, &width, &ldy};
  const auto outputs = static_cast<std::size_t>(tokens) * static_cast<std::size_t>(width);
  launch(kernels.activate, striding_grid(outputs / 8), kUtilityThreads, 0, stream, params);
}

}  // namespace w4tune

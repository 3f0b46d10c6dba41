// SlicedProduct: y = x * dequant(w)^T by cuBLASLt, on slices of w's rows that are dequantised into
// a bounded scratch (core/composite.h). Tuner and runtime run this, so what is measured is served.
//
// The algorithm is the first that cuBLASLt's heuristic names, for operands of 16-byte alignment.
#pragma once

#include <cuda.h>

#include <cstdint>
#include <map>
#include <utility>

#include "core/composite.h"
#include "core/gemm_args.h"
#include "gpu/cublaslt.h"

namespace w4tune {

// Of templates/device/utility.cu, for the problem's dtype.
struct SliceKernels {
  CUfunction dequantize = nullptr;
  CUfunction activate = nullptr;  // geglu alone needs it
};

class SlicedProduct {
 public:
  // `block` tokens at a time share the scratch: slice_scratch(problem, slice_rows, block). Requires
  // a current context; throws as CublasLtGemm.
  SlicedProduct(const Problem& problem, int slice_rows, int block, int m, std::int64_t ldx,
                std::int64_t ldy);

  // Puts the launches into `stream`; may be captured. Any thread; the scratch belongs to the
  // stream. Of `args` x, w, scales and y are read.
  void run(const SliceKernels& kernels, const w4::GemmArgs& args, void* scratch,
           CUstream stream) const;

 private:
  void dequantize_slice(const SliceKernels& kernels, const w4::GemmArgs& args, int row_begin,
                        int rows, void* weight, CUstream stream) const;
  void activate_slice(const SliceKernels& kernels, void* product, void* y, int tokens, int width,
                      CUstream stream) const;

  Problem problem_;
  int slice_rows_;
  int block_;
  int m_;
  std::int64_t ldx_;
  std::int64_t ldy_;
  std::map<std::pair<int, int>, CublasLtGemm> gemms_;  // by rows and tokens
};

// CTAs of a utility kernel that strides, of kUtilityThreads threads each.
inline constexpr std::uint32_t kUtilityThreads = 256;
std::uint32_t striding_grid(std::size_t threads);

}  // namespace w4tune

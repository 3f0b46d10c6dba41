// GemmArgs: the one argument of every GEMM kernel. This header is compiled by the host compiler
// and, embedded beside the device headers, by NVRTC: it therefore includes nothing.
#pragma once

namespace w4 {

struct GemmArgs {
  const void* x;           // [m, k] row-major, ldx elements between rows; 16-byte aligned
  const void* w;           // packed INT4 weight, layout L0 (core/weight_layout.h)
  const void* scales;      // packed scales, same layout family
  void* y;                 // [m, n] row-major, ldy elements between rows; 16-byte aligned
  float* partials;         // split_k > 1: FP32 partial tiles, see LaunchPlan::partial_bytes
  unsigned int* counters;  // split_k > 1: one per output tile, zero before and after every launch
  long long ldx;           // elements, a multiple of 8
  long long ldy;           // elements, a multiple of 8
  int m;                   // tokens
  int n;                   // width of y
  int k;                   // depth
  int split_k;             // CTAs that share the depth of one output tile, >= 1
  int raster;              // row tiles walked together before the next token tile, >= 1
  int dependent;           // 1: launched to begin before the kernel before has ended (sm_90)
};

}  // namespace w4

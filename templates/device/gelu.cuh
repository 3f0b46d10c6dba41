// gelu_tanh(x) = x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3))), in FP32.
//
// 1 + tanh(v) is 2 / (1 + exp(-2v)), which spares the subtraction that would cancel for negative x:
//   gelu(x) = x / (1 + 2^e),   e = -2 log2(e) sqrt(2 / pi) * (x + 0.044715 x^3)
// A large positive x gives 2^e = 0 and x itself; a large negative one 2^e = infinity and -0; x^3
// may overflow on the way. The error is at most 2^-21 |x| (docs/kernels.md, "Error bounds"): 2^-22
// of the power, 2^-23 of the reciprocal, and the roundings of e, less than a quarter of which is
// felt. 3e7 values from -12 to 12 with both at their worst gave 0.6 of that.
#pragma once

#include "ptx.cuh"

namespace w4 {

__device__ __forceinline__ float gelu_tanh(float x) {
  constexpr float kLinear = -2.3022082F;  // -2 log2(e) sqrt(2 / pi)
  constexpr float kCubic = kLinear * 0.044715F;
  const float e = x * (kLinear + kCubic * (x * x));
  return x * reciprocal_f32(1.0F + exp2_f32(e));
}

// Gated linear unit with GELU: what the fused gate and up projection ends in.
__device__ __forceinline__ float geglu(float gate, float up) { return gelu_tanh(gate) * up; }

}  // namespace w4

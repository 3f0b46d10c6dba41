// One 32-bit word of layout L0 (core/weight_layout.h) to the A operand of one m16n8k16 step.
//
// A nibble u = w + 8 is OR-ed into the last bits of a number whose spacing there is one (or 16, for
// the upper nibble), which makes it that number plus u; subtracting the number plus 8 leaves w,
// exactly. The 1024 (or 128) must not stay in the operand: the tensor core truncates products when
// it aligns them, and the error reaches 3e-2 (docs/kernels.md).
//
//   a[0] row g,   depth 2t, 2t+1      a[2] row g,   depth 2t+8, 2t+9
//   a[1] row g+8, depth 2t, 2t+1      a[3] row g+8, depth 2t+8, 2t+9
#pragma once

#include "ptx.cuh"

namespace w4 {

template <class Element>
struct Dequant;

// 9 instructions for 8 weights: 1 shift, 4 LOP3, 2 subtractions, 2 fused multiply-adds.
template <>
struct Dequant<F16> {
  static constexpr u32 kLowNibbles = 0x000f000f;
  static constexpr u32 kHighNibbles = 0x00f000f0;
  static constexpr u32 k1024 = 0x64006400;       // spacing 1: 1024 + u, or 1024 + 16u
  static constexpr u32 k1032 = 0x64086408;       // 1024 + 8
  static constexpr u32 kSixteenth = 0x2c002c00;  // 1/16
  static constexpr u32 kMinus72 = 0xd480d480;    // -(1024 / 16 + 8)

  __device__ __forceinline__ static void word(u32 q, u32* a) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      a[2 * half] = F16::sub2(and_or(q, kLowNibbles, k1024), k1032);
      a[2 * half + 1] = F16::fma2(and_or(q, kHighNibbles, k1024), kSixteenth, kMinus72);
      q >>= 8;
    }
  }
};

// 11 instructions: BF16 has 7 fraction bits, so only the lowest nibble of each half fits under 128.
template <>
struct Dequant<BF16> {
  static constexpr u32 kLowNibbles = 0x000f000f;
  static constexpr u32 k128 = 0x43004300;  // spacing 1: 128 + u
  static constexpr u32 kOne = 0x3f803f80;
  static constexpr u32 kMinus136 = 0xc308c308;  // -(128 + 8)

  __device__ __forceinline__ static void word(u32 q, u32* a) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      a[i] = BF16::fma2(and_or(q, kLowNibbles, k128), kOne, kMinus136);
      q >>= 4;
    }
  }
};

// Two modes that leave the nibbles where they are. As the bits of an FP16 number a nibble is the
// denormal u * 2^-24 (the low one of a byte) or u * 2^-20 (the high one), which tensor cores that
// honour denormals multiply exactly. Sums over u instead of w = u - 8 are 8 * sum(x) too large, and
// must be settled before the scale, group by group:
//   sum(w x) = 2^24 sum(u 2^-24 x) - 8 sum(x)
// `group` holds a thread's sums of one fragment, `x` those of its two tokens, `out` what they make.
// FP16 only: the denormals of BF16 are 2^-133, and so would the FP32 sums be.

// D2den, 5 instructions for 8 weights: 4 LOP3, 1 shift.
struct DenormalDequant {
  static constexpr u32 kLowNibbles = 0x000f000f;
  static constexpr u32 kHighNibbles = 0x00f000f0;

  __device__ __forceinline__ static void word(u32 q, u32* a) {
    a[0] = q & kLowNibbles;
    a[1] = q & kHighNibbles;
    a[2] = (q >> 8) & kLowNibbles;
    a[3] = (q >> 8) & kHighNibbles;
  }

  __device__ __forceinline__ static void settle(const float* group, const float* x, float* out) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      out[i] = group[i] * 0x1p24F - 8.0F * x[i];
      out[2 + i] = group[2 + i] * 0x1p20F - 8.0F * x[i];
    }
  }
};

// D4, 4 instructions: 3 LOP3, 1 byte permutation. Row g + 8 gets its whole byte, 16 u + the nibble
// of row g, whose sum the same thread has: it is subtracted at the end.
struct ByteDequant {
  static constexpr u32 kLowNibbles = 0x000f000f;
  static constexpr u32 kLowBytes = 0x00ff00ff;
  static constexpr u32 kHighBytes = 0x4341;  // bytes 1 and 3, each above a zero

  __device__ __forceinline__ static void word(u32 q, u32* a) {
    a[0] = q & kLowNibbles;
    a[1] = q & kLowBytes;
    a[3] = permute_bytes(q, 0, kHighBytes);
    a[2] = a[3] & kLowNibbles;
  }

  __device__ __forceinline__ static void settle(const float* group, const float* x, float* out) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      out[i] = group[i] * 0x1p24F - 8.0F * x[i];
      out[2 + i] = (group[2 + i] - group[i]) * 0x1p20F - 8.0F * x[i];
    }
  }
};

// For CUDA cores (gemv): the 8 weights of a word as FP32, for products in FP32. w[n] is nibble n,
// at bit 4n of the word: of row g where n is even, else of row g + 8.

// Which of the depths 2t, 2t+1, 2t+8, 2t+9 nibble n belongs to.
__device__ __forceinline__ constexpr int depth_of_nibble(int n) { return n / 4 + n / 2 % 2 * 2; }

// The weight itself, 17 instructions: 1 shift, 8 LOP3, 8 subtractions. A nibble at bit p of the
// fraction of 2^(23-p), spacing 2^-p, is OR-ed in as the number u.
struct FloatDequant {
  __device__ __forceinline__ static void word(u32 q, float* w) {
#pragma unroll
    for (int n = 0; n < 8; ++n) {
      const int shift = n < 5 ? 4 * n : 4 * n - 12;  // at most 19, or it leaves the fraction
      const u32 power = static_cast<u32>(127 + 23 - shift) << 23;
      const u32 bits = and_or(n < 5 ? q : q >> 12, 0xfU << shift, power);
      w[n] = float_of_bits(bits) - (static_cast<float>(1 << (23 - shift)) + 8.0F);
    }
  }
};

// D2den of FP32, 9 instructions: 1 shift, 8 LOP3. A nibble at bit p <= 20 is the denormal
// u * 2^(p-149), exact in products with x * power_of() and, unlike the FP16 kind, on any GPU:
// FP32 units take denormals at full rate. x of FP16 reaches 2^16 only, so that neither x times its
// power nor a sum of products leaves the range of FP32; x of BF16 could.
struct FloatDenormalDequant {
  // What x at each of the four depths is multiplied by, so that all products have one scale.
  __device__ __forceinline__ static constexpr float power_of(int depth) {
    return depth == 0 ? 0x1p110F : depth == 2 ? 0x1p102F : 0x1p94F;
  }
  // Times this, the sums of row g (0) and of row g + 8 (1) are the sums of u * x.
  __device__ __forceinline__ static constexpr float settle_of(int row) {
    return row == 0 ? 0x1p39F : 0x1p35F;
  }

  __device__ __forceinline__ static void word(u32 q, float* w) {
#pragma unroll
    for (int n = 0; n < 8; ++n) {
      const int shift = n < 6 ? 4 * n : 4 * n - 8;
      w[n] = float_of_bits((n < 6 ? q : q >> 8) & (0xfU << shift));
    }
  }
};

// The scales of rows g and g + 8 of 16-row fragment `r` (r < 4), for lane 4g + t. Lane 8r + i of
// the warp has those of rows 2i and 2i + 1 of fragment r in `pairs`. Whole warps call.
__device__ __forceinline__ void fragment_scales(u32 pairs, int r, int lane, u16& low, u16& high) {
  const int odd = lane / 4 % 2 * 16;
  low = static_cast<u16>(shuffle(pairs, r * 8 + lane / 8) >> odd);
  high = static_cast<u16>(shuffle(pairs, r * 8 + 4 + lane / 8) >> odd);
}

}  // namespace w4

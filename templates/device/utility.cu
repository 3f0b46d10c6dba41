// Utility kernels: what layers need beside their product (packing a weight and undoing it, the
// activation of a gated pair, DuQuant's block rotation), and the double-precision reference with
// its judge.
//
// The reference reads the *unpacked* nibbles, so that a mistake in the packing shows as a wrong
// result.
#include "epilogue.cuh"
#include "gelu.cuh"
#include "ptx.cuh"

namespace w4 {

// [m, k] 16-bit activations to double.
template <bool kIsBf16>
__device__ __forceinline__ float to_float(u16 bits) {
  if constexpr (kIsBf16) {
    return BF16::to_f32(bits);
  } else {
    return F16::to_f32(bits);
  }
}

// Row of the unpacked weight behind packed row `row` (core/weight_layout.h, source_row).
__device__ __forceinline__ int source_row(int row, int n, bool geglu) {
  if (!geglu) return row;
  const int output = 8 * (row / 16) + row % 8;
  return row % 16 >= 8 ? n + output : output;
}

// One thread per packed word: 8 weights.
__device__ __forceinline__ void pack_word(const unsigned char* nibbles, u32* packed, int n, int k,
                                          bool geglu, u32 flip, long long word) {
  const int step = static_cast<int>(word % 4);
  const int lane = static_cast<int>(word / 4 % 32);
  const long long block = word / 128;
  const int row = static_cast<int>(block / (k / 64)) * 16 + lane / 4;
  const int depth = static_cast<int>(block % (k / 64)) * 64 + step * 16 + lane % 4 * 2;
  u32 value = 0;
  for (int i = 0; i < 8; ++i) {
    // Bit 4i holds: row +8 for odd i, depth +8 for i % 4 >= 2, depth +1 for i >= 4.
    const int source = source_row(row + 8 * (i % 2), n, geglu);
    const int at = depth + 8 * (i / 2 % 2) + i / 4;
    const u32 byte = nibbles[static_cast<long long>(source) * (k / 2) + at / 2];
    value |= (((byte >> (4 * (at % 2))) & 15u) ^ flip) << (4 * i);
  }
  packed[word] = value;
}

}  // namespace w4

// nibbles [rows, k/2], scales [rows, groups] -> layout L0. flip: 8 for two's complement nibbles,
// else 0.
extern "C" __global__ void w4_pack_weight(const unsigned char* nibbles, const w4::u16* scales,
                                          w4::u32* packed_weight, w4::u16* packed_scales, int rows,
                                          int n, int k, int groups, int geglu, w4::u32 flip) {
  const long long first = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
  const long long stride = static_cast<long long>(gridDim.x) * blockDim.x;
  const long long words = static_cast<long long>(rows) * k / 8;
  for (long long word = first; word < words; word += stride) {
    w4::pack_word(nibbles, packed_weight, n, k, geglu != 0, flip, word);
  }
  const long long num_scales = static_cast<long long>(rows) * groups;
  for (long long i = first; i < num_scales; i += stride) {
    const long long tile = i / 16 / groups;
    const int group = static_cast<int>(i / 16 % groups);
    const int source = w4::source_row(static_cast<int>(tile * 16 + i % 16), n, geglu != 0);
    packed_scales[i] = scales[static_cast<long long>(source) * groups + group];
  }
}

namespace w4 {

// ---- undoing the packing ------------------------------------------------------------------------

constexpr int kBlockDepth = 64;               // of a block of layout L0, 16 rows high
constexpr int kBlockPitch = kBlockDepth + 8;  // elements; rows of 16 bytes land on all banks

// One warp a block: its lanes spread their 32 weights over shared memory, and the block leaves in
// rows of 128 bytes.
template <class Element>
__device__ __forceinline__ void dequantize(const U32x4* packed_weight, const u16* packed_scales,
                                           u16* w, int rows, int n, int k, int groups, bool geglu) {
  constexpr int kWarps = 8;
  __shared__ __align__(16) u16 tiles[kWarps][16 * kBlockPitch];
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  u16* const tile = tiles[warp];
  const int across = k / kBlockDepth;
  const long long blocks = static_cast<long long>(rows / 16) * across;
  for (long long block = static_cast<long long>(blockIdx.x) * kWarps + warp; block < blocks;
       block += static_cast<long long>(gridDim.x) * kWarps) {
    const int row_begin = static_cast<int>(block / across) * 16;
    const int depth_begin = static_cast<int>(block % across) * kBlockDepth;
    const U32x4 words = load_global_16(packed_weight + block * 32 + lane);
    const u16* const scales = packed_scales + static_cast<long long>(row_begin) * groups;
    __syncwarp();
#pragma unroll
    for (int step = 0; step < 4; ++step) {
      const int depth = step * 16 + lane % 4 * 2;
      const int group = static_cast<int>(static_cast<long long>(depth_begin + depth) * groups / k);
#pragma unroll
      for (int half = 0; half < 2; ++half) {  // rows g and g + 8
        const int row = lane / 4 + 8 * half;
        const float scale = Element::to_f32(scales[group * 16 + row]);
#pragma unroll
        for (int far = 0; far < 2; ++far) {  // depth + 0 and + 8
          const u32 pair = words.v[step] >> (8 * far + 4 * half);
          const float low = static_cast<float>(static_cast<int>(pair & 15u) - 8);
          const float high = static_cast<float>(static_cast<int>(pair >> 16 & 15u) - 8);
          *reinterpret_cast<u32*>(tile + row * kBlockPitch + depth + 8 * far) =
              Element::pack2(low * scale, high * scale);
        }
      }
    }
    __syncwarp();
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int row = 4 * i + lane / 8;
      const int column = lane % 8 * 8;
      const long long source = source_row(row_begin + row, n, geglu);
      *reinterpret_cast<U32x4*>(w + source * k + depth_begin + column) =
          *reinterpret_cast<const U32x4*>(tile + row * kBlockPitch + column);
    }
  }
}

// ---- the activation of a gated pair -------------------------------------------------------------

// h [m, 2n] dense, y [m, n] of ldy elements between rows; both multiples of 8. One thread for 8
// outputs.
template <class Element>
__device__ __forceinline__ void activate(const u16* h, u16* y, int m, int n, long long ldy) {
  const long long count = static_cast<long long>(m) * (n / 8);
  const long long first = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
  const long long stride = static_cast<long long>(gridDim.x) * blockDim.x;
  for (long long i = first; i < count; i += stride) {
    const u16* const gate_at = h + i / (n / 8) * 2 * n + i % (n / 8) * 8;
    const U32x4 gate = load_global_16(reinterpret_cast<const U32x4*>(gate_at));
    const U32x4 up = load_global_16(reinterpret_cast<const U32x4*>(gate_at + n));
    U32x4 out;
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const float low = geglu(Element::to_f32(static_cast<u16>(gate.v[j])),
                              Element::to_f32(static_cast<u16>(up.v[j])));
      const float high = geglu(Element::to_f32(static_cast<u16>(gate.v[j] >> 16)),
                               Element::to_f32(static_cast<u16>(up.v[j] >> 16)));
      out.v[j] = Element::pack2(low, high);
    }
    *reinterpret_cast<U32x4*>(y + i / (n / 8) * ldy + i % (n / 8) * 8) = out;
  }
}

// ---- block rotation -----------------------------------------------------------------------------

// y[t, b*B + j] = sum over i of x[t, permutation[b*B + i]] * blocks[b, i, j].
//
//              j: 256 / lines columns            One CTA makes one rotation block for kTokens *
//        +-------------------------------+       lines tokens: thread (line, j) sums column j of
//   i    | blocks[b], FP16, read along j |       kTokens tokens. x, permuted, waits in shared
//        +-------------------------------+       memory as FP32, tokens innermost.
//   x[line][i][kTokens]  ->  y[line][kTokens][j]
//
// columns: a power of two of at least B, 16 to 256; columns * lines = 256 threads.
template <class Element>
__device__ __forceinline__ void rotate(const u16* x, const int* permutation, const u16* blocks,
                                       u16* y, int m, int width, int block, int columns,
                                       long long ldx) {
  constexpr int kTokens = 8;
  constexpr int kThreads = 256;
  __shared__ __align__(16) float tile[kThreads * kTokens];  // [block][lines * kTokens]
  const int lines = kThreads / columns;
  const int tokens = lines * kTokens;
  const int num_blocks = (width + block - 1) / block;
  const int b = static_cast<int>(blockIdx.x) % num_blocks;
  const int token_begin = static_cast<int>(blockIdx.x) / num_blocks * tokens;
  const int begin = b * block;
  const int depth = width - begin < block ? width - begin : block;
  const int column = static_cast<int>(threadIdx.x) % columns;
  const int line = static_cast<int>(threadIdx.x) / columns;
  if (column < depth) {
    const int source = permutation == nullptr ? begin + column : permutation[begin + column];
#pragma unroll
    for (int t = 0; t < kTokens; ++t) {
      const int token = token_begin + line * kTokens + t;
      tile[column * tokens + line * kTokens + t] =
          token < m ? Element::to_f32(x[static_cast<long long>(token) * ldx + source]) : 0.0F;
    }
  }
  __syncthreads();
  if (column >= depth) return;
  float sums[kTokens] = {};
  const u16* const factors = blocks + static_cast<long long>(b) * block * block + column;
  const float* const values = tile + line * kTokens;
#pragma unroll 4
  for (int i = 0; i < depth; ++i) {
    const float factor = F16::to_f32(factors[static_cast<long long>(i) * block]);
    const F32x4 low = *reinterpret_cast<const F32x4*>(values + i * tokens);
    const F32x4 high = *reinterpret_cast<const F32x4*>(values + i * tokens + 4);
#pragma unroll
    for (int t = 0; t < 4; ++t) {
      sums[t] += low.v[t] * factor;
      sums[t + 4] += high.v[t] * factor;
    }
  }
#pragma unroll
  for (int t = 0; t < kTokens; ++t) {
    const int token = token_begin + line * kTokens + t;
    if (token < m) {
      y[static_cast<long long>(token) * width + begin + column] = Element::from_f32(sums[t]);
    }
  }
}

}  // namespace w4

extern "C" __global__ void w4_dequantize_f16(const w4::U32x4* packed_weight,
                                             const w4::u16* packed_scales, w4::u16* w, int rows,
                                             int n, int k, int groups, int geglu) {
  w4::dequantize<w4::F16>(packed_weight, packed_scales, w, rows, n, k, groups, geglu != 0);
}

extern "C" __global__ void w4_dequantize_bf16(const w4::U32x4* packed_weight,
                                              const w4::u16* packed_scales, w4::u16* w, int rows,
                                              int n, int k, int groups, int geglu) {
  w4::dequantize<w4::BF16>(packed_weight, packed_scales, w, rows, n, k, groups, geglu != 0);
}

extern "C" __global__ void w4_activate_rows_f16(const w4::u16* h, w4::u16* y, int m, int n,
                                                long long ldy) {
  w4::activate<w4::F16>(h, y, m, n, ldy);
}

extern "C" __global__ void w4_activate_rows_bf16(const w4::u16* h, w4::u16* y, int m, int n,
                                                 long long ldy) {
  w4::activate<w4::BF16>(h, y, m, n, ldy);
}

extern "C" __global__ void w4_rotate_f16(const w4::u16* x, const int* permutation,
                                         const w4::u16* blocks, w4::u16* y, int m, int width,
                                         int block, int columns, long long ldx) {
  w4::rotate<w4::F16>(x, permutation, blocks, y, m, width, block, columns, ldx);
}

extern "C" __global__ void w4_rotate_bf16(const w4::u16* x, const int* permutation,
                                          const w4::u16* blocks, w4::u16* y, int m, int width,
                                          int block, int columns, long long ldx) {
  w4::rotate<w4::BF16>(x, permutation, blocks, y, m, width, block, columns, ldx);
}

namespace w4 {

// What is known of one dot product of x with a dequantised weight row. Layout mirrored in
// tuner/verify.cc.
struct Sums {
  double product;  // sum x*s*q, exactly in double
  float abs;       // sum |x*s*q|
  float squares;   // sum (x*s*q)^2
  float scaled;    // sum |x*s|
};

// One 16 x 16 tile of [m, rows] a block.
template <bool kIsBf16>
__device__ __forceinline__ void reference(const u16* x, const unsigned char* nibbles,
                                          const u16* scales, Sums* sums, int m, int rows, int k,
                                          int group) {
  constexpr int kTile = 16;
  constexpr int kDepth = 32;
  __shared__ float x_tile[kTile][kDepth + 1];
  __shared__ double w_tile[kTile][kDepth + 1];
  __shared__ float scale_tile[kTile][kDepth + 1];
  const int column = static_cast<int>(threadIdx.x) % kTile;
  const int token = static_cast<int>(threadIdx.x) / kTile;
  const int row_begin = static_cast<int>(blockIdx.x) % (rows / kTile) * kTile;
  const int token_begin = static_cast<int>(blockIdx.x) / (rows / kTile) * kTile;
  Sums sum = {0.0, 0.0F, 0.0F, 0.0F};
  for (int depth = 0; depth < k; depth += kDepth) {
    for (int i = static_cast<int>(threadIdx.x); i < kTile * kDepth; i += kTile * kTile) {
      const int line = i / kDepth;
      const int at = depth + i % kDepth;
      const int x_row = token_begin + line;
      x_tile[line][i % kDepth] =
          x_row < m ? to_float<kIsBf16>(x[static_cast<long long>(x_row) * k + at]) : 0.0F;
      const long long w_row = row_begin + line;  // rows is a multiple of 16
      const int nibble = (nibbles[w_row * (k / 2) + at / 2] >> (4 * (at % 2))) & 15;
      const float scale = to_float<kIsBf16>(scales[w_row * (k / group) + at / group]);
      w_tile[line][i % kDepth] = static_cast<double>(scale) * (nibble - 8);
      scale_tile[line][i % kDepth] = scale;
    }
    __syncthreads();
    for (int i = 0; i < kDepth; ++i) {
      const double a = x_tile[token][i];
      const double w = w_tile[column][i];
      sum.product += a * w;
      const float term = static_cast<float>(a) * static_cast<float>(w);
      sum.abs += fabsf(term);
      sum.squares += term * term;
      sum.scaled += fabsf(static_cast<float>(a) * scale_tile[column][i]);
    }
    __syncthreads();
  }
  if (token_begin + token < m) {
    sums[static_cast<long long>(token_begin + token) * rows + row_begin + column] = sum;
  }
}

// What the judge found; zero it before, read it after. Layout mirrored in tuner/verify.cc.
struct Verdict {
  u32 worst_ratio_bits;              // largest |error| / bound, as the bits of a non-negative float
  u32 max_abs_bits;                  // largest |error|
  double error_sq;                   // sum of error^2
  double ref_sq;                     // sum of ref^2
  unsigned long long fence_touched;  // canary elements that are not what they were
};

// The terms of the bound (docs/kernels.md, "Error bounds"). Layout mirrored in tuner/verify.cc.
struct Bounds {
  float output_roundoff;  // of |y|
  float tiny;             // spacing of the smallest numbers
  float abs_factor;       // of sum |x*s*q|
  float scaled_factor;    // of sum |x*s|
  float squares_factor;   // of sqrt(sum (x*s*q)^2)
  float gelu_factor;      // of |gate|: the FP32 approximation of GELU
};

// A value with the error that its computation in FP32 may have.
struct Bounded {
  double value;
  double error;
};

__device__ __forceinline__ Bounded bounded(const Sums& sums, const Bounds& bounds) {
  return {sums.product, bounds.abs_factor * sums.abs + bounds.scaled_factor * sums.scaled +
                            bounds.squares_factor * sqrt(static_cast<double>(sums.squares))};
}

// gelu_tanh(gate) * up. The slope of GELU is at most 1.13.
__device__ __forceinline__ Bounded bounded_geglu(const Bounded& gate, const Bounded& up,
                                                 const Bounds& bounds) {
  constexpr double kSlope = 1.13;
  constexpr double kRoot2OverPi = 0.79788456080286536;
  const double x = gate.value;
  const double gelu = 0.5 * x * (1.0 + tanh(kRoot2OverPi * (x + 0.044715 * x * x * x)));
  const double gelu_error = kSlope * gate.error + bounds.gelu_factor * fabs(x);
  return {gelu * up.value, gelu_error * (fabs(up.value) + up.error) + fabs(gelu) * up.error};
}

__device__ __forceinline__ u32 ordered_bits(float value) {
  return value == value ? __float_as_uint(value) : 0x7f800000u;  // NaN counts as infinite
}

// y [m, n]; sums [m, n], or [m, 2n] for geglu: gate, then up.
template <bool kIsBf16>
__device__ __forceinline__ void judge(const u16* y, const Sums* sums, Verdict* verdict, int m,
                                      int n, bool geglu, const Bounds& bounds) {
  float worst = 0.0F;
  float largest = 0.0F;
  double error_sq = 0.0;
  double ref_sq = 0.0;
  bool bad = false;
  const long long count = static_cast<long long>(m) * n;
  const long long first = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
  const long long stride = static_cast<long long>(gridDim.x) * blockDim.x;
  for (long long i = first; i < count; i += stride) {
    const Sums* const of_token = sums + i / n * (geglu ? 2 * n : n);
    Bounded ref = bounded(of_token[i % n], bounds);
    if (geglu) ref = bounded_geglu(ref, bounded(of_token[n + i % n], bounds), bounds);
    const double error = fabs(static_cast<double>(to_float<kIsBf16>(y[i])) - ref.value);
    const double bound = bounds.output_roundoff * fabs(ref.value) + bounds.tiny + ref.error;
    bad = bad || !(error < 1e30);
    worst = fmaxf(worst, static_cast<float>(error / bound));
    largest = fmaxf(largest, static_cast<float>(error));
    error_sq += error * error;
    ref_sq += ref.value * ref.value;
  }
  if (bad) worst = __uint_as_float(0x7f800000u);
  atomicMax(&verdict->worst_ratio_bits, ordered_bits(worst));
  atomicMax(&verdict->max_abs_bits, ordered_bits(largest));
  if (!bad) {
    atomicAdd(&verdict->error_sq, error_sq);
    atomicAdd(&verdict->ref_sq, ref_sq);
  }
}

}  // namespace w4

extern "C" __global__ void w4_reference_f16(const w4::u16* x, const unsigned char* nibbles,
                                            const w4::u16* scales, w4::Sums* sums, int m, int rows,
                                            int k, int group) {
  w4::reference<false>(x, nibbles, scales, sums, m, rows, k, group);
}

extern "C" __global__ void w4_reference_bf16(const w4::u16* x, const unsigned char* nibbles,
                                             const w4::u16* scales, w4::Sums* sums, int m, int rows,
                                             int k, int group) {
  w4::reference<true>(x, nibbles, scales, sums, m, rows, k, group);
}

extern "C" __global__ void w4_judge_f16(const w4::u16* y, const w4::Sums* sums,
                                        w4::Verdict* verdict, int m, int n, int geglu,
                                        const w4::Bounds bounds) {
  w4::judge<false>(y, sums, verdict, m, n, geglu != 0, bounds);
}

extern "C" __global__ void w4_judge_bf16(const w4::u16* y, const w4::Sums* sums,
                                         w4::Verdict* verdict, int m, int n, int geglu,
                                         const w4::Bounds bounds) {
  w4::judge<true>(y, sums, verdict, m, n, geglu != 0, bounds);
}

// One warp. Adds to `right` the lanes whose products of FP16 denormals with ones are what they
// should be: 32 where mma.sync honours denormals as operands.
extern "C" __global__ void w4_probe_denormals(w4::u32* right) {
  const float zero[4] = {0.0F, 0.0F, 0.0F, 0.0F};
  const w4::u32 ones[2] = {0x3c003c00, 0x3c003c00};
  bool all = true;
  for (w4::u32 nibble = 1; nibble < 16; ++nibble) {
    // Rows g hold u * 2^-24, rows g + 8 u * 2^-20, as D2den has them; 16 of depth are summed.
    const w4::u32 low = nibble * 0x00010001;
    const w4::u32 high = nibble * 0x00100010;
    const w4::u32 a[4] = {low, high, low, high};
    float sums[4];
    w4::F16::mma(sums, a, ones, zero);
    const float u = static_cast<float>(nibble);
    all = all && sums[0] == u * 0x1p-20F && sums[1] == sums[0];
    all = all && sums[2] == u * 0x1p-16F && sums[3] == sums[2];
  }
  if (all) atomicAdd(right, 1U);
}

// `turns` times eight products of registers alone by each warp, 4096 operations each: the rate of
// mma.sync, which no kernel that multiplies by it can pass. Random operands of both signs. `y` is
// written where a sum is not a number, so that the products are needed.
extern "C" __global__ void __launch_bounds__(256) w4_mma_rate(float* y, int turns) {
  constexpr int kChains = 8;
  w4::u32 state = static_cast<w4::u32>(w4::block_index() * 256 + w4::thread_index()) * 2 + 1;
  w4::u32 a[2][4];
  w4::u32 b[2][2];
  float sums[kChains][4] = {};
  for (int i = 0; i < 12; ++i) {
    state = state * 1664525U + 1013904223U;
    // Signs and mantissas at random, exponents of 1/2.
    const w4::u32 pair = (state & 0x83ff83ffU) | 0x38003800U;
    if (i < 8) {
      a[i / 4][i % 4] = pair;
    } else {
      b[(i - 8) / 2][i % 2] = pair;
    }
  }
  for (int turn = 0; turn < turns; ++turn) {
#pragma unroll
    for (int c = 0; c < kChains; ++c) w4::F16::mma(sums[c], a[c % 2], b[c / 2 % 2], sums[c]);
  }
  for (int c = 0; c < kChains; ++c) {
    for (int i = 0; i < 4; ++i) {
      if (sums[c][i] != sums[c][i]) *y = sums[c][i];
    }
  }
}

// Reads a packed weight and its scales once, and does nothing with them: what no kernel that needs
// them can be faster than. Like those it may begin before the kernel before has ended.
extern "C" __global__ void w4_read(const w4::U32x4* weight, long long weight_chunks,
                                   const w4::U32x4* scales, long long scale_chunks, w4::u32* sink) {
  w4::dependents_launch();
  constexpr int kAhead = 4;
  const long long first = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
  const long long stride = static_cast<long long>(gridDim.x) * blockDim.x;
  w4::u32 mixed = 0;
  for (long long i = first; i < weight_chunks; i += kAhead * stride) {
    w4::U32x4 v[kAhead];
#pragma unroll
    for (int j = 0; j < kAhead; ++j) {
      v[j] = w4::U32x4{};
      if (i + j * stride < weight_chunks) v[j] = w4::load_global_16(weight + i + j * stride);
    }
#pragma unroll
    for (int j = 0; j < kAhead; ++j) mixed ^= v[j].v[0] ^ v[j].v[1] ^ v[j].v[2] ^ v[j].v[3];
  }
  for (long long i = first; i < scale_chunks; i += stride) {
    const w4::U32x4 v = w4::load_global_16(scales + i);
    mixed ^= v.v[0] ^ v.v[1] ^ v.v[2] ^ v.v[3];
  }
  w4::dependency_wait();
  if (mixed == 0x9e3779b9U) *sink = mixed;  // so that the loads count as used
}

// Does nothing, and lets the next one begin early: what a launch costs by itself.
extern "C" __global__ void w4_nothing() {
  w4::dependents_launch();
  w4::dependency_wait();
}

namespace w4 {

constexpr int kReduceThreads = 256;

// What the CTAs of a split do after their last product, and nothing else: each leaves kOwned *
// 4 KB of partials, and the last of a tile adds up those of all and stores FP16.
template <int kOwned>
__device__ __forceinline__ void reduce_alone(const GemmArgs& args) {
  constexpr int kTileFloats = kOwned * 4 * kReduceThreads;
  const int thread = thread_index();
  const int tile = block_index() / args.split_k;
  float sums[kOwned][4];
  int places[kOwned];
#pragma unroll
  for (int j = 0; j < kOwned; ++j) {
    places[j] = j * kReduceThreads + thread;
#pragma unroll
    for (int i = 0; i < 4; ++i) sums[j][i] = static_cast<float>(i);
  }
  const SplitShares<kTileFloats, kReduceThreads, 1> shares{args, tile, block_index() % args.split_k,
                                                           thread, shared_base()};
  if (!shares.gather(sums, places)) return;
  u16* const y = static_cast<u16*>(args.y) + static_cast<long long>(tile) * kTileFloats;
#pragma unroll
  for (int j = 0; j < kOwned; ++j) {
    store_global_8(y + places[j] * 4, F16::pack2(sums[j][0], sums[j][1]),
                   F16::pack2(sums[j][2], sums[j][3]));
  }
}

}  // namespace w4

extern "C" __global__ void __launch_bounds__(w4::kReduceThreads)
    w4_reduce_little(const __grid_constant__ w4::GemmArgs args) {
  w4::reduce_alone<1>(args);
}

extern "C" __global__ void __launch_bounds__(w4::kReduceThreads)
    w4_reduce_much(const __grid_constant__ w4::GemmArgs args) {
  w4::reduce_alone<8>(args);
}

// Counts 16-bit elements of a fence that no longer hold the canary.
extern "C" __global__ void w4_check_fence(const w4::u16* fence, w4::Verdict* verdict, int count,
                                          int canary) {
  for (int i = static_cast<int>(threadIdx.x); i < count; i += static_cast<int>(blockDim.x)) {
    if (fence[i] != canary) atomicAdd(&verdict->fence_touched, 1ULL);
  }
}

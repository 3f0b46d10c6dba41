// mma_reg: y = x * dequant(w)^T with mma.sync, weights from global memory straight to registers.
//
//        depth (K)              one CTA: kRowTile x kTokenTile outputs over a share of the depth,
//   +------+------+- -+------+  in steps of kDepthTile = 64 * kBlocks * kDepthWarps
//   | warp | warp |   | warp |
//   |  0   |  1   |   |  n-1 |    each warp: all rows of the tile, kBlocks blocks (64 deep) of each
//   +------+------+- -+------+    step, the weights of kAhead blocks under way in its registers
//
// No barrier stands between a warp's first load and its last product: every warp requests its
// weights with its first instructions, then brings its own slice of x through its own piece of
// shared memory (plain loads and stores: cp.async was slower, docs/kernels.md). When one step is
// the whole share, everything a CTA needs is under way at once: the shape for small weights, which
// are bound by latency. The sums of the warps meet in shared memory, those of a split in the
// workspace (epilogue.cuh).
//
// Run-time arguments: N, K, M, split. Requires (host side, templates/mma_reg.cc):
//   rows % 16 == 0, k % kDepthTile == 0, k % group == 0, x and y 16-byte aligned, ldx % 8 == 0.
//
// Config: kRowTile, kTokenTile, kDepthWarps, kBlocks, kAhead, kGroupSize (0: one scale per row),
//   kGeglu, Element. Scales multiply the FP32 sums of each group (D1).
#pragma once

#include "dequant.cuh"
#include "epilogue.cuh"
#include "gemm_args.h"
#include "ptx.cuh"

namespace w4 {

template <class Config>
constexpr int num_threads() {
  return 32 * Config::kDepthWarps;
}

template <class Config>
struct MmaReg {
  using Element = typename Config::Element;

  static constexpr int kWarps = Config::kDepthWarps;
  static constexpr int kThreads = 32 * kWarps;
  static constexpr int kRows = Config::kRowTile / 16;     // 16-row fragments
  static constexpr int kTokens = Config::kTokenTile / 8;  // 8-token fragments
  static constexpr int kBlocks = Config::kBlocks;         // of a warp in a step
  static constexpr int kAhead = Config::kAhead;
  static constexpr int kStepBlocks = kBlocks * kWarps;

  static constexpr bool kPerRow = Config::kGroupSize == 0;
  static constexpr int kGroup = kPerRow ? 64 : Config::kGroupSize;
  static constexpr int kGroupSteps = kGroup >= 64 ? 4 : 2;  // 16-deep steps of a block in a group
  static constexpr int kBlockGroups = 4 / kGroupSteps;      // scales of a row in a block
  // A group of 128 is two blocks; where a warp has only one of them, both take the scale.
  static constexpr int kGroupBlocks = kGroup == 128 && kBlocks % 2 == 0 ? 2 : 1;

  static constexpr u32 kTokenBytes = kBlocks * 128;  // of one token in a warp's slice
  static constexpr u32 kSliceBytes = Config::kTokenTile * kTokenBytes;
  static constexpr u32 kSumBytes = kRows * kTokens * 512;  // one warp's sums
  // Each warp leaves its sums where its slice was.
  static constexpr u32 kWarpBytes = kSliceBytes > kSumBytes ? kSliceBytes : kSumBytes;
  static constexpr u32 kVote = kWarps * kWarpBytes;

  static_assert(kRows <= 4, "one load of scales serves four fragments");
  static_assert(kAhead == 1 || kAhead % kBlocks == 0 || kBlocks % kAhead == 0,
                "the ring of weights and the blocks of a step must turn together");

  const GemmArgs& args;
  const u32 shared = shared_base();
  const int thread = thread_index();
  const int lane = thread % 32;
  const int warp = thread / 32;
  const u32 slice = shared + static_cast<u32>(warp) * kWarpBytes;

  int tile;
  int split;
  int row_begin;
  int token_begin;
  int first_block;  // of this warp, in blocks of 64 from the start of the depth
  int num_items;    // blocks of this warp

  const char* weights;   // this lane's 16 bytes of the first block of the first fragment
  const char* scales;    // this lane's two scales of the first group: fragment lane / 8
  bool has_scales;       // lanes beyond the tile's fragments have none
  long long row_stride;  // bytes of 16 rows

  U32x4 words[kAhead][kRows];
  u32 scale_words[kAhead][kBlockGroups];
  float group_acc[kRows][kTokens][4];
  float acc[kRows][kTokens][4];

  __device__ __forceinline__ explicit MmaReg(const GemmArgs& a) : args(a) {}

  __device__ __forceinline__ void place() {
    int linear = block_index();
    const int steps = args.k / (64 * kStepBlocks);
    int step_begin = 0;
    int num_steps = steps;
    split = 0;
    if (args.split_k > 1) {
      linear = block_index() / args.split_k;
      split = block_index() - linear * args.split_k;
      const int share = steps / args.split_k;  // the first `longer` shares have one step more
      const int longer = steps - share * args.split_k;
      step_begin = split * share + (split < longer ? split : longer);
      num_steps = share + (split < longer ? 1 : 0);
    }
    tile = linear;
    int token_tile = 0;
    if (args.m > Config::kTokenTile) {
      const int token_tiles = (args.m + Config::kTokenTile - 1) / Config::kTokenTile;
      linear = tile / token_tiles;
      token_tile = tile - linear * token_tiles;
    }
    row_begin = linear * Config::kRowTile;
    token_begin = token_tile * Config::kTokenTile;
    first_block = step_begin * kStepBlocks + warp * kBlocks;
    num_items = num_steps * kBlocks;
    const int blocks = args.k / 64;
    row_stride = static_cast<long long>(blocks) * 512;
    weights = static_cast<const char*>(args.w) + row_begin / 16 * row_stride +
              static_cast<long long>(first_block) * 512 + lane * 16;
    if constexpr (!kPerRow) {
      const long long groups = args.k / kGroup;
      scales = static_cast<const char*>(args.scales) + (row_begin / 16 + lane / 8) * groups * 32 +
               lane % 8 * 4;
    }
    has_scales = lane / 8 < kRows && row_begin + lane / 8 * 16 < rows();
  }

  __device__ __forceinline__ int rows() const { return Config::kGeglu ? 2 * args.n : args.n; }

  // Distance, in blocks of the layout, of this warp's item `i` from its first.
  __device__ __forceinline__ int block_of(int i) const {
    return i / kBlocks * kStepBlocks + i % kBlocks;
  }

  // ---- weights to registers ---------------------------------------------------------------------

  __device__ __forceinline__ void request(int i, int slot, int r) {
    if (row_begin + r * 16 < rows()) {
      words[slot][r] = load_global_16(weights + block_of(i) * 512 + r * row_stride);
    }
  }

  __device__ __forceinline__ void request_scales(int i, int slot) {
    if constexpr (!kPerRow) {
      const int depth = (first_block + block_of(i)) * 64;
#pragma unroll
      for (int g = 0; g < kBlockGroups; ++g) {
        scale_words[slot][g] = has_scales ? load_global_u32(scales + (depth / kGroup + g) * 32) : 0;
      }
    }
  }

  // ---- x through this warp's own shared memory --------------------------------------------------

  // [kTokenTile][kBlocks * 64], 16-byte chunks swizzled by token % 8 within 128 bytes.
  __device__ __forceinline__ void stage_tokens(int step) const {
    constexpr int kChunks = kBlocks * 8;                                       // of a token
    constexpr int kPasses = Config::kTokenTile * kChunks / 32;                 // chunks of a lane
    constexpr int kBatch = kPasses % 8 == 0 ? 8 : (kPasses % 4 == 0 ? 4 : 2);  // under way at once
    const u16* const from = static_cast<const u16*>(args.x) + token_begin * args.ldx +
                            (first_block + step * kStepBlocks) * 64;
#pragma unroll
    for (int pass = 0; pass < kPasses; pass += kBatch) {
      U32x4 v[kBatch];
#pragma unroll
      for (int i = 0; i < kBatch; ++i) {
        const int index = (pass + i) * 32 + lane;
        const int token = index / kChunks;
        v[i] = U32x4{};
        if (token_begin + token < args.m) {
          v[i] = load_global_16_cached(from + token * args.ldx + index % kChunks * 8);
        }
      }
#pragma unroll
      for (int i = 0; i < kBatch; ++i) {
        const int index = (pass + i) * 32 + lane;
        const int token = index / kChunks;
        const u32 at = static_cast<u32>(token) * kTokenBytes +
                       static_cast<u32>((index % kChunks) ^ (token & 7)) * 16;
        store_shared_16(slice + at, v[i]);
      }
    }
    warp_sync();
  }

  // B fragments of step `s` of block `b`.
  __device__ __forceinline__ void load_tokens(int b, int s, u32 (&fragment)[kTokens][2]) const {
    const int row = lane % 8;
    const int upper_half = (lane / 8) % 2;  // depth 8..15 of the step
    const int second = lane / 16;           // the second of two token fragments
    const u32 base = slice + static_cast<u32>(row) * kTokenBytes + static_cast<u32>(b) * 128 +
                     static_cast<u32>((2 * s + upper_half) ^ row) * 16;
#pragma unroll
    for (int t = 0; t + 1 < kTokens; t += 2) {
      ldmatrix_x4(base + static_cast<u32>(t + second) * 8 * kTokenBytes, fragment[t][0],
                  fragment[t][1], fragment[t + 1][0], fragment[t + 1][1]);
    }
    if constexpr (kTokens % 2 == 1) {
      constexpr u32 t = kTokens - 1;
      ldmatrix_x2(base + t * 8 * kTokenBytes, fragment[t][0], fragment[t][1]);
    }
  }

  // ---- products ---------------------------------------------------------------------------------

  // acc += scale * group_acc for the group `g` of the block in `slot`.
  __device__ __forceinline__ void promote(int slot, int g) {
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      float scale[2] = {1.0F, 1.0F};
      if constexpr (!kPerRow) {
        u16 low;
        u16 high;
        fragment_scales(scale_words[slot][g], r, lane, low, high);
        scale[0] = Element::to_f32(low);
        scale[1] = Element::to_f32(high);
      }
#pragma unroll
      for (int t = 0; t < kTokens; ++t) {
#pragma unroll
        for (int i = 0; i < 4; ++i) acc[r][t][i] += scale[i / 2] * group_acc[r][t][i];
      }
    }
  }

  // Item i, whose weights wait in `slot`; those of item i + kAhead are requested in their place.
  __device__ __forceinline__ void multiply(int i, int b, int slot) {
    const float zero[4] = {0.0F, 0.0F, 0.0F, 0.0F};
    const bool more = i + kAhead < num_items;
    const bool begins = kGroupBlocks == 1 || b % 2 == 0;
    const bool ends = kGroupBlocks == 1 || b % 2 == 1;
    u32 tokens[4][kTokens][2];
#pragma unroll
    for (int s = 0; s < 4; ++s) load_tokens(b, s, tokens[s]);
#pragma unroll
    for (int half = 0; half < kBlockGroups; ++half) {
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
#pragma unroll
        for (int s = half * kGroupSteps; s < (half + 1) * kGroupSteps; ++s) {
          const bool first = begins && s % kGroupSteps == 0;
          u32 a[4];
          Dequant<Element>::word(words[slot][r].v[s], a);
#pragma unroll
          for (int t = 0; t < kTokens; ++t) {
            Element::mma(group_acc[r][t], a, tokens[s][t], first ? zero : group_acc[r][t]);
          }
        }
        if (half == kBlockGroups - 1 && more) request(i + kAhead, slot, r);
      }
      if (ends) promote(slot, half);
    }
    if (more) request_scales(i + kAhead, slot);
  }

  // ---- sums of the warps ------------------------------------------------------------------------

  __device__ __forceinline__ void finish() {
    warp_sync();  // every lane has read its tokens: the sums may take their place
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
#pragma unroll
      for (int t = 0; t < kTokens; ++t) {
        store_shared_f32x4(slice + static_cast<u32>((r * kTokens + t) * 32 + lane) * 16, acc[r][t]);
      }
    }
    barrier();
    using End = Epilogue<Config, kThreads, 0>;
    constexpr int kOwned = (End::kUnits + kWarps - 1) / kWarps;
    float sums[kOwned][4];
    int units[kOwned];
#pragma unroll
    for (int j = 0; j < kOwned; ++j) {
      const int unit = warp + j * kWarps;
      units[j] = unit < End::kUnits ? unit : End::kNone;
#pragma unroll
      for (int i = 0; i < 4; ++i) sums[j][i] = 0.0F;
      if (unit >= End::kUnits) continue;
#pragma unroll
      for (int w = 0; w < kWarps; ++w) {
        const F32x4 v = load_shared_f32x4(shared + static_cast<u32>(w) * kWarpBytes +
                                          static_cast<u32>(unit * 32 + lane) * 16);
#pragma unroll
        for (int i = 0; i < 4; ++i) sums[j][i] += v.v[i];
      }
    }
    const End end{args, tile, split, row_begin, token_begin, thread, shared + kVote};
    end.finish(sums, units);
  }

  // ---- the whole --------------------------------------------------------------------------------

  __device__ __forceinline__ void run() {
    dependents_launch();
    place();
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      if (i >= num_items) break;
      request_scales(i, i);
#pragma unroll
      for (int r = 0; r < kRows; ++r) request(i, i, r);
    }
    dependency_wait();
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
#pragma unroll
      for (int t = 0; t < kTokens; ++t) {
#pragma unroll
        for (int i = 0; i < 4; ++i) acc[r][t][i] = 0.0F;
      }
    }
    constexpr int kTurn = kAhead > kBlocks ? kAhead : kBlocks;  // items of a turn of the loop
    for (int base = 0; base < num_items; base += kTurn) {
#pragma unroll
      for (int j = 0; j < kTurn; ++j) {
        if (base + j >= num_items) break;
        if (j % kBlocks == 0) {
          if (base + j > 0) warp_sync();  // the slice of the step before has been read
          stage_tokens((base + j) / kBlocks);
        }
        multiply(base + j, j % kBlocks, j % kAhead);
      }
    }
    finish();
  }
};

template <class Config>
__device__ __forceinline__ void mma_reg(const GemmArgs& args) {
  MmaReg<Config>(args).run();
}

}  // namespace w4

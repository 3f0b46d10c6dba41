// mma_pipe: y = x * dequant(w)^T, or gelu_tanh(x * w_gate^T) * (x * w_up^T), with mma.sync, weights
// and activations through a cp.async pipeline.
//
// Weights are the 16-row operand and tokens the 8-column operand, so M is padded to 8, not to 16.
//
//                  tokens (M)            one CTA: kRowTile x kTokenTile outputs over a share
//            +--------+--------+- - -+   1/split_k of the depth, walked in steps of kDepthTile
//   rows (N) | CTA    |        |     |   through kStages buffers:
//   kRowTile | tile   |        |     |     w  [kRowTile/16][kDepthTile/64][512 B]  layout L0
//            +--------+--------+- - -+     x  [kTokenTile][kDepthTile]  16-byte chunks, swizzled
//            |        |        |     |        by token % 8
//            +--------+--------+- - -+     s  [kRowTile/16][groups of a step][16]
//            kTokenTile
//
//   Warps: kRowWarps x kTokenWarps share the tile; kDepthWarps share each step's depth and are
//   summed through shared memory. The split_k CTAs of a tile add their FP32 sums in the order of
//   the split, so the result does not depend on who comes last:
//     kReduce 0: they leave partials in the workspace, and the last to arrive adds them all;
//     kReduce 1: they are a cluster (sm_90), and each adds its share from the others' shared
//     memory.
//
//   GeGLU: the weight has 2N rows, gate and up rows interleaved by 8, so that a thread's c0, c1 are
//   the gate and c2, c3 the up of the same outputs (row g, tokens 2t and 2t + 1). The last of a
//   split applies it, to the FP32 sums; a tile of kRowTile rows gives kRowTile / 2 outputs.
//
// Run-time arguments: N, K, M, split, raster. Requires (host side, templates/mma_pipe.cc):
//   n % 16 == 0, k % kDepthTile == 0, k % group == 0, x and y 16-byte aligned, ldx and ldy % 8 ==
//   0.
//
// Config: kRowTile, kTokenTile, kDepthTile, kStages, kRowWarps, kTokenWarps, kDepthWarps,
//   kDequant (0: FP16 scale on each weight; 1: FP32 scale on each group's accumulators; 2 and 3:
//   the same with nibbles as denormals, see dequant.cuh),
//   kReduce, kEvictFirst (weights leave L2 first), kGroupSize (0: one scale per row), kGeglu,
//   Element (F16 or BF16).
#pragma once

#include "dequant.cuh"
#include "gelu.cuh"
#include "gemm_args.h"
#include "ptx.cuh"

namespace w4 {

template <class Config>
constexpr int num_threads() {
  return 32 * Config::kRowWarps * Config::kTokenWarps * Config::kDepthWarps;
}

template <class Config>
struct MmaPipe {
  using Element = typename Config::Element;

  static constexpr int kThreads = num_threads<Config>();
  static constexpr int kTileWarps = Config::kRowWarps * Config::kTokenWarps;
  static constexpr int kDepthWarps = Config::kDepthWarps;
  static constexpr int kStages = Config::kStages;
  static constexpr int kBlocks = Config::kDepthTile / 64;                  // L0 blocks of a step
  static constexpr int kWarpBlocks = kBlocks / kDepthWarps;                // of one warp
  static constexpr int kRows = Config::kRowTile / 16 / Config::kRowWarps;  // 16-row fragments
  static constexpr int kTokens = Config::kTokenTile / 8 / Config::kTokenWarps;  // 8-token fragments
  static constexpr int kFragments = kRows * kTokens;

  static constexpr bool kCluster = Config::kReduce == 1;
  static constexpr bool kPerRow = Config::kGroupSize == 0;
  static constexpr bool kScaleWeights = Config::kDequant == 0;
  static constexpr int kGroup = kPerRow ? Config::kDepthTile : Config::kGroupSize;
  static constexpr bool kPromotes = !kScaleWeights && !kPerRow;
  // Sums are over u = w + 8, and settled with the sums of x.
  static constexpr bool kOffset = Config::kDequant >= 2;
  // Blocks of one warp whose sums share a scale: two only where a group of 128 lies within the
  // warp's share of a step.
  static constexpr int kGroupBlocks = kPromotes && kGroup == 128 && kWarpBlocks % 2 == 0 ? 2 : 1;
  // Unrolling lets loads of the next block run ahead; with many accumulators it makes ptxas spill.
  static constexpr int kAccumulated = kFragments * (kPromotes ? 2 : 1) + (kOffset ? kTokens : 0);
  static constexpr int kUnroll = kAccumulated <= 8 ? kWarpBlocks / kGroupBlocks : 1;
  static constexpr int kStepGroups =
      kPerRow ? 0 : (Config::kDepthTile > kGroup ? Config::kDepthTile / kGroup : 1);

  // Outputs of 16 weight rows, and of the tile.
  static constexpr int kFragmentOutputs = Config::kGeglu ? 8 : 16;
  static constexpr int kOutputTile = Config::kRowTile / 16 * kFragmentOutputs;

  static constexpr int kWeightBytes = Config::kRowTile * Config::kDepthTile / 2;
  static constexpr int kActivationBytes = Config::kTokenTile * Config::kDepthTile * 2;
  static constexpr int kScaleBytes = Config::kRowTile * kStepGroups * 2;
  static constexpr int kStageBytes = kWeightBytes + kActivationBytes + kScaleBytes;

  static_assert(Config::kRowTile % (16 * Config::kRowWarps) == 0, "whole 16-row fragments a warp");
  static_assert(Config::kTokenTile % (8 * Config::kTokenWarps) == 0,
                "whole 8-token fragments a warp");
  static_assert(Config::kDepthTile % (64 * kDepthWarps) == 0, "whole L0 blocks a warp");
  static_assert(kStages >= 2, "one buffer is read while another is filled");
  static_assert(!(kPerRow && kOffset), "sums over the whole depth lose bits to the offset");
  static_assert(!(kPerRow && kScaleWeights), "a scale per row is cheapest on the final sums");

  const GemmArgs& args;
  const u32 shared = shared_base();
  const int thread = thread_index();
  const int lane = thread % 32;
  const int depth_warp = thread / 32 / kTileWarps;
  const int row_warp = thread / 32 % kTileWarps / Config::kTokenWarps;
  const int token_warp = thread / 32 % Config::kTokenWarps;

  int tile;         // linear index of the output tile
  int row_begin;    // first weight row of the tile
  int token_begin;  // first token of the tile
  int split;        // which share of the depth
  int step_begin;   // first depth step of the share
  int num_steps;

  const char* weights_from;     // this thread's (or the tile's) first chunk of weights
  const u16* activations_from;  // this thread's first chunk of activations
  int row_tiles_left;           // 16-row tiles from there to the last row
  int tokens_left;              // tokens from there to the last
  u64 policy;                   // of the weights in L2 (kEvictFirst only)

  float acc[kRows][kTokens][4];
  // Sums of one group before its scale (D1 only).
  float group_acc[kPromotes ? kRows : 1][kPromotes ? kTokens : 1][4];
  // Sums of x over the group (D2den and D4 only), the same in rows g and g + 8.
  float x_acc[kOffset ? kTokens : 1][4];

  __device__ __forceinline__ explicit MmaPipe(const GemmArgs& a) : args(a) {}

  // ---- which part of the work ------------------------------------------------------------------

  // Rows of the packed weight.
  __device__ __forceinline__ int weight_rows() const {
    return Config::kGeglu ? 2 * args.n : args.n;
  }

  // `raster` row tiles are walked together before the next token tile, so that neighbours in time
  // share weights (raster 1) or activations (raster = all row tiles) in L2.
  __device__ __forceinline__ void place() {
    const int row_tiles = (weight_rows() + Config::kRowTile - 1) / Config::kRowTile;
    const int token_tiles = (args.m + Config::kTokenTile - 1) / Config::kTokenTile;
    // Divisions by run-time values cost some 100 cycles each before the first load: as few as can
    // be.
    int linear = block_index();
    const int steps = args.k / Config::kDepthTile;
    split = 0;
    step_begin = 0;
    num_steps = steps;
    if (args.split_k > 1) {
      linear = block_index() / args.split_k;
      split = block_index() - linear * args.split_k;
      const int share = steps / args.split_k;  // the first `longer` shares have one step more
      const int longer = steps - share * args.split_k;
      step_begin = split * share + (split < longer ? split : longer);
      num_steps = share + (split < longer ? 1 : 0);
    }
    int row_tile = linear;
    int token_tile = 0;
    if (token_tiles > 1) {
      const int band_tiles = args.raster * token_tiles;
      const int band = linear / band_tiles;
      const int in_band = linear - band * band_tiles;
      const int left = row_tiles - band * args.raster;
      const int band_rows = left < args.raster ? left : args.raster;
      token_tile = in_band / band_rows;
      row_tile = band * args.raster + in_band - token_tile * band_rows;
    }
    tile = row_tile * token_tiles + token_tile;
    row_begin = row_tile * Config::kRowTile;
    token_begin = token_tile * Config::kTokenTile;
    aim();
  }

  // ---- global to shared ------------------------------------------------------------------------

  __device__ __forceinline__ u32 stage_address(int step) const {
    return shared + static_cast<u32>(step % kStages) * kStageBytes;
  }

  // Each thread copies 16-byte chunks: chunk `thread + i * kThreads` of a stage lies a compile-time
  // number of row tiles (or tokens) and chunks behind chunk `thread`, because a pass of all threads
  // covers whole row tiles (or a row tile whole passes) and whole tokens. Only 13 row warps break
  // that, for the weights: they look each chunk up.
  static constexpr int kRowChunks = kBlocks * 32;              // of 16 weight rows
  static constexpr int kTokenChunks = Config::kDepthTile / 8;  // of one token
  static constexpr bool kWholePasses = kThreads % kRowChunks == 0 || kRowChunks % kThreads == 0;
  static constexpr int kRowStep = kThreads > kRowChunks ? kThreads / kRowChunks : 1;
  static constexpr int kRowPasses = kRowChunks > kThreads ? kRowChunks / kThreads : 1;
  static constexpr int kTokenStep = kThreads / kTokenChunks;
  static_assert(kThreads % kTokenChunks == 0, "a pass over the activations covers whole tokens");

  // Where this thread's first chunks of the first step come from.
  __device__ __forceinline__ void aim() {
    const int own = kWholePasses ? thread : 0;
    const int row_tile = row_begin / 16 + own / kRowChunks;
    const long long block = static_cast<long long>(row_tile) * (args.k / 64) + step_begin * kBlocks;
    weights_from = static_cast<const char*>(args.w) + block * 512 + own % kRowChunks * 16;
    if constexpr (Config::kEvictFirst) policy = evict_first_policy();
    const int token = token_begin + thread / kTokenChunks;
    activations_from = static_cast<const u16*>(args.x) + token * args.ldx +
                       step_begin * Config::kDepthTile + thread % kTokenChunks * 8;
    row_tiles_left = weight_rows() / 16 - row_tile;
    tokens_left = args.m - token;
  }

  // What lies beyond N or M is filled with zeros when a buffer is used first, and never written
  // again.
  __device__ __forceinline__ void copy(int step, u32 to, const void* from, bool valid) const {
    if (valid || step < kStages) cp_async_16(to, valid ? from : args.x, valid);
  }

  // The same for weights, which no other CTA at work will ask for.
  __device__ __forceinline__ void copy_weights(int step, u32 to, const void* from,
                                               bool valid) const {
    if constexpr (Config::kEvictFirst) {
      if (valid || step < kStages) {
        cp_async_16_evict_first(to, valid ? from : args.x, valid, policy);
      }
    } else {
      copy(step, to, from, valid);
    }
  }

  __device__ __forceinline__ void fetch_weights(int step, u32 to) const {
    constexpr int kChunks = kWeightBytes / 16;
    const char* const from = weights_from + static_cast<long long>(step) * (kBlocks * 512);
    const int row_bytes = args.k * 8;  // of 16 rows
#pragma unroll
    for (int i = 0; i < (kChunks + kThreads - 1) / kThreads; ++i) {
      const int chunk = thread + i * kThreads;
      if (kChunks % kThreads != 0 && chunk >= kChunks) break;
      const int row_tile = kWholePasses ? i / kRowPasses * kRowStep : chunk / kRowChunks;
      const int within = kWholePasses ? i % kRowPasses * kThreads : chunk % kRowChunks;
      copy_weights(step, to + static_cast<u32>(chunk) * 16,
                   from + static_cast<long long>(row_tile) * row_bytes + within * 16,
                   row_tile < row_tiles_left);
    }
  }

  __device__ __forceinline__ void fetch_activations(int step, u32 to) const {
    constexpr int kChunks = Config::kTokenTile * kTokenChunks;
    const u16* const from = activations_from + step * Config::kDepthTile;
#pragma unroll
    for (int i = 0; i < (kChunks + kThreads - 1) / kThreads; ++i) {
      if (kChunks % kThreads != 0 && thread + i * kThreads >= kChunks) break;
      const int token = thread / kTokenChunks + i * kTokenStep;
      const int swizzled = token * kTokenChunks + ((thread % kTokenChunks) ^ (token & 7));
      copy(step, to + static_cast<u32>(swizzled) * 16, from + i * kTokenStep * args.ldx,
           i * kTokenStep < tokens_left);
    }
  }

  __device__ __forceinline__ void fetch_scales(int step, u32 to) const {
    if constexpr (!kPerRow) {
      constexpr int kChunks = kScaleBytes / 16;
      constexpr int kScaleChunks = kStepGroups * 2;  // of 16 rows
      const int groups = args.k / kGroup;
      const int group = (step_begin + step) * Config::kDepthTile / kGroup;
#pragma unroll
      for (int i = 0; i < (kChunks + kThreads - 1) / kThreads; ++i) {
        const int chunk = thread + i * kThreads;
        if (kChunks % kThreads != 0 && chunk >= kChunks) break;
        const int row_tile = row_begin / 16 + chunk / kScaleChunks;
        const long long from = (static_cast<long long>(row_tile) * groups + group) * 32;
        copy(step, to + static_cast<u32>(chunk) * 16,
             static_cast<const char*>(args.scales) + from + chunk % kScaleChunks * 16,
             row_tile < weight_rows() / 16);
      }
    }
  }

  __device__ __forceinline__ void fetch(int step) const {
    if (step < num_steps) {
      const u32 stage = stage_address(step);
      fetch_weights(step, stage);
      fetch_activations(step, stage + kWeightBytes);
      fetch_scales(step, stage + kWeightBytes + kActivationBytes);
    }
    cp_async_commit();  // an empty group keeps the count of the waits
  }

  // The first stages, launched to begin early: weights and scales may be read already, x may not.
  // All that comes early counts into the first group of copies.
  __device__ __forceinline__ void fetch_early() const {
#pragma unroll
    for (int step = 0; step < kStages - 1; ++step) {
      if (step >= num_steps) break;
      fetch_weights(step, stage_address(step));
      fetch_scales(step, stage_address(step) + kWeightBytes + kActivationBytes);
    }
    dependency_wait();
#pragma unroll
    for (int step = 0; step < kStages - 1; ++step) {
      if (step < num_steps) fetch_activations(step, stage_address(step) + kWeightBytes);
      cp_async_commit();
    }
  }

  // ---- shared to registers to tensor core ------------------------------------------------------

  // B fragments of one 16-deep step: x[token][k] read as its transpose.
  __device__ __forceinline__ void load_tokens(u32 x, int block, int s, u32 (&b)[kTokens][2]) const {
    constexpr u32 kTokenBytes = Config::kDepthTile * 2;
    const int row = lane % 8;
    const int upper_half = (lane / 8) % 2;  // depth 8..15 of the step
    const int second = lane / 16;           // the second of two token fragments
    const int fragment = token_warp * kTokens + second;
    const u32 chunk = static_cast<u32>((2 * s) ^ (upper_half ^ row)) * 16;
    const u32 base = x + static_cast<u32>(fragment * 8 + row) * kTokenBytes +
                     static_cast<u32>(block) * 128 + chunk;
#pragma unroll
    for (int t = 0; t + 1 < kTokens; t += 2) {
      ldmatrix_x4(base + static_cast<u32>(t) * 8 * kTokenBytes, b[t][0], b[t][1], b[t + 1][0],
                  b[t + 1][1]);
    }
    if constexpr (kTokens % 2 == 1) {
      constexpr int t = kTokens - 1;
      // Lanes 16..31 give no address here; theirs must still lie within the buffer.
      const u32 own = base - static_cast<u32>(second) * 8 * kTokenBytes;
      ldmatrix_x2(own + static_cast<u32>(t) * 8 * kTokenBytes, b[t][0], b[t][1]);
    }
  }

  // Scales of rows g and g + 8 of fragment r, for the group that holds depth `depth` of the step.
  __device__ __forceinline__ void load_scales(u32 s, int r, int depth, u16& low, u16& high) const {
    const int fragment = row_warp * kRows + r;
    const int group = kGroup < Config::kDepthTile ? depth / kGroup : 0;
    const u32 at = s + static_cast<u32>((fragment * kStepGroups + group) * 32 + lane / 4 * 2);
    low = load_shared_u16(at);
    high = load_shared_u16(at + 16);
  }

  // acc += scale * group_acc, rows g (elements 0, 1) and g + 8 (elements 2, 3).
  __device__ __forceinline__ void promote(u32 s, int depth) {
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      u16 low;
      u16 high;
      load_scales(s, r, depth, low, high);
      const float scale[2] = {Element::to_f32(low), Element::to_f32(high)};
#pragma unroll
      for (int t = 0; t < kTokens; ++t) {
        float sum[4];
        settle(group_acc[r][t], x_acc[kOffset ? t : 0], sum);
#pragma unroll
        for (int i = 0; i < 4; ++i) acc[r][t][i] += scale[i / 2] * sum[i];
      }
    }
  }

  // What the sums of a group are over: the weights, or their nibbles.
  __device__ __forceinline__ static void settle(const float* group, const float* x, float* sum) {
    if constexpr (Config::kDequant == 2) {
      DenormalDequant::settle(group, x, sum);
    } else if constexpr (Config::kDequant == 3) {
      ByteDequant::settle(group, x, sum);
    } else {
#pragma unroll
      for (int i = 0; i < 4; ++i) sum[i] = group[i];
    }
  }

  __device__ __forceinline__ static void dequantise(u32 word, u32* a) {
    if constexpr (Config::kDequant == 2) {
      DenormalDequant::word(word, a);
    } else if constexpr (Config::kDequant == 3) {
      ByteDequant::word(word, a);
    } else {
      Dequant<Element>::word(word, a);
    }
  }

  // Adds x over 16 of depth, as the product with a row of ones: each thread gets the sums of the
  // very tokens it needs, without a shuffle, at 1 / kRows more products.
  template <bool kFirst>
  __device__ __forceinline__ void sum_tokens(const u32 (&b)[kTokens][2]) {
    if constexpr (kOffset) {
      const float zero[4] = {0.0F, 0.0F, 0.0F, 0.0F};
      const u32 ones[4] = {0x3c003c00, 0x3c003c00, 0x3c003c00, 0x3c003c00};
#pragma unroll
      for (int t = 0; t < kTokens; ++t)
        Element::mma(x_acc[t], ones, b[t], kFirst ? zero : x_acc[t]);
    }
  }

  // Dequantises and multiplies one 16-deep step: `word` of the loaded words, tokens from shared
  // memory.
  template <int kWord, bool kFirst>
  __device__ __forceinline__ void multiply_step(u32 x, int block, const U32x4 (&words)[kRows],
                                                const u32 (&scale)[kRows][2]) {
    const float zero[4] = {0.0F, 0.0F, 0.0F, 0.0F};
    u32 b[kTokens][2];
    load_tokens(x, block, kWord, b);
    sum_tokens<kFirst>(b);
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      u32 a[4];
      dequantise(words[r].v[kWord], a);
      if constexpr (kScaleWeights) {
#pragma unroll
        for (int i = 0; i < 4; ++i) a[i] = Element::mul2(a[i], scale[r][i % 2]);
      }
#pragma unroll
      for (int t = 0; t < kTokens; ++t) {
        if constexpr (kScaleWeights || kPerRow) {
          Element::mma(acc[r][t], a, b[t], acc[r][t]);
        } else {
          Element::mma(group_acc[r][t], a, b[t], kFirst ? zero : group_acc[r][t]);
        }
      }
    }
  }

  // One 64-deep block of the weight: four steps, with the scales that change within it.
  template <bool kFirst, bool kLast>
  __device__ __forceinline__ void multiply_block(u32 stage, int block) {
    const u32 x = stage + kWeightBytes;
    const u32 s = x + kActivationBytes;
    U32x4 words[kRows];
    u32 scale[kRows][2] = {};
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const int fragment = row_warp * kRows + r;
      words[r] =
          load_shared_16(stage + static_cast<u32>((fragment * kBlocks + block) * 512 + lane * 16));
    }
    constexpr bool kTwice = kGroup == 32;  // two groups in one block
    if constexpr (kScaleWeights) load_scale_pairs(s, 64 * block, scale);
    multiply_step<0, kFirst>(x, block, words, scale);
    multiply_step<1, false>(x, block, words, scale);
    if constexpr (kTwice && kScaleWeights) load_scale_pairs(s, 64 * block + 32, scale);
    if constexpr (kTwice && kPromotes) promote(s, 64 * block);
    multiply_step<2, kTwice>(x, block, words, scale);
    multiply_step<3, false>(x, block, words, scale);
    if constexpr (kLast && kPromotes) promote(s, 64 * block + 32);
  }

  __device__ __forceinline__ void load_scale_pairs(u32 s, int depth, u32 (&scale)[kRows][2]) const {
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      u16 low;
      u16 high;
      load_scales(s, r, depth, low, high);
      scale[r][0] = pair_of(low);
      scale[r][1] = pair_of(high);
    }
  }

  __device__ __forceinline__ void multiply(int step) {
    const u32 stage = stage_address(step);
    const int first = depth_warp * kWarpBlocks;
#pragma unroll kUnroll
    for (int i = 0; i < kWarpBlocks; i += kGroupBlocks) {
      if constexpr (kGroupBlocks == 1) {
        multiply_block<true, true>(stage, first + i);
      } else {
        multiply_block<true, false>(stage, first + i);
        multiply_block<false, true>(stage, first + i + 1);
      }
    }
  }

  // ---- registers to global ---------------------------------------------------------------------

  // With kDepthWarps > 1 each fragment is finished by one of the warps that hold a share of it.
  __device__ __forceinline__ bool owns(int r, int t) const {
    return kDepthWarps == 1 || (r * kTokens + t) % kDepthWarps == depth_warp;
  }

  __device__ __forceinline__ bool any_token(int t) const {
    return token_begin + (token_warp * kTokens + t) * 8 < args.m;
  }

  // Float offset of this thread's four values of a fragment within one FP32 copy of the tile.
  __device__ __forceinline__ int fragment_offset(int r, int t) const {
    const int warp = row_warp * Config::kTokenWarps + token_warp;
    return ((warp * kFragments + r * kTokens + t) * 32 + lane) * 4;
  }

  __device__ __forceinline__ void reduce_depth_warps() {
    if constexpr (kDepthWarps > 1) {
      constexpr u32 kCopyBytes = Config::kRowTile * Config::kTokenTile * 4;
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
#pragma unroll
        for (int t = 0; t < kTokens; ++t) {
          if (owns(r, t)) continue;
          store_shared_f32x4(shared + static_cast<u32>(depth_warp) * kCopyBytes +
                                 static_cast<u32>(fragment_offset(r, t)) * 4,
                             acc[r][t]);
        }
      }
      barrier();
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
#pragma unroll
        for (int t = 0; t < kTokens; ++t) {
          if (!owns(r, t)) continue;
          float sum[4] = {0.0F, 0.0F, 0.0F, 0.0F};
#pragma unroll
          for (int d = 0; d < kDepthWarps; ++d) {
            F32x4 other;
            if (d != depth_warp) {
              other = load_shared_f32x4(shared + static_cast<u32>(d) * kCopyBytes +
                                        static_cast<u32>(fragment_offset(r, t)) * 4);
            }
#pragma unroll
            for (int i = 0; i < 4; ++i) sum[i] += d == depth_warp ? acc[r][t][i] : other.v[i];
          }
#pragma unroll
          for (int i = 0; i < 4; ++i) acc[r][t][i] = sum[i];
        }
      }
      barrier();  // the output tile takes the same shared memory next
    }
  }

  // One scale per row: applied once, to the sums of this CTA's share of the depth.
  __device__ __forceinline__ void scale_rows() {
    if constexpr (kPerRow) {
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        const int row = row_begin + (row_warp * kRows + r) * 16 + lane / 4;
        if (row >= weight_rows()) continue;
        const u16* from = static_cast<const u16*>(args.scales) + row;
        const float scale[2] = {Element::to_f32(load_global_u16(from)),
                                Element::to_f32(load_global_u16(from + 8))};
#pragma unroll
        for (int t = 0; t < kTokens; ++t) {
#pragma unroll
          for (int i = 0; i < 4; ++i) acc[r][t][i] *= scale[i / 2];
        }
      }
    }
  }

  // Which CTA of a cluster finishes a fragment of the tile.
  __device__ __forceinline__ int finisher(int tile_warp, int fragment) const {
    return (tile_warp * kFragments + fragment) % args.split_k;
  }

  // Adds the sums of all CTAs of the cluster: each finishes its share of the fragments.
  __device__ __forceinline__ void reduce_cluster() {
    if (args.split_k == 1) return;
    const int tile_warp = row_warp * Config::kTokenWarps + token_warp;
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
#pragma unroll
      for (int t = 0; t < kTokens; ++t) {
        if (!owns(r, t) || !any_token(t)) continue;
        store_shared_f32x4(shared + static_cast<u32>(fragment_offset(r, t)) * 4, acc[r][t]);
      }
    }
    cluster_barrier();
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
#pragma unroll
      for (int t = 0; t < kTokens; ++t) {
        if (!owns(r, t) || !any_token(t)) continue;
        if (finisher(tile_warp, r * kTokens + t) != split) continue;
        const u32 at = shared + static_cast<u32>(fragment_offset(r, t)) * 4;
#pragma unroll
        for (int i = 0; i < 4; ++i) acc[r][t][i] = 0.0F;
#pragma unroll 4
        for (int part = 0; part < args.split_k; ++part) {
          const F32x4 v = load_cluster_f32x4(cluster_address(at, part));
#pragma unroll
          for (int i = 0; i < 4; ++i) acc[r][t][i] += v.v[i];
        }
      }
    }
    cluster_barrier();  // the others have read this CTA's sums: it may reuse its memory, or end
  }

  // Returns whether this CTA is the one that finishes the tile, with the sums in acc.
  __device__ __forceinline__ bool reduce_workspace() {
    if (args.split_k == 1) return true;
    constexpr long long kTileFloats = Config::kRowTile * Config::kTokenTile;
    float* const tile_partials = args.partials + tile * args.split_k * kTileFloats;
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
#pragma unroll
      for (int t = 0; t < kTokens; ++t) {
        if (!owns(r, t) || !any_token(t)) continue;
        store_global_l2(tile_partials + split * kTileFloats + fragment_offset(r, t), acc[r][t]);
      }
    }
    // One thread's release covers the stores of all: the barrier orders them before it. A fence in
    // every thread, before and after the vote, cost 0.5 us (docs/kernels.md).
    barrier();
    const u32 vote = shared;  // one word of shared memory: how many came before
    if (thread == 0) store_shared_u32(vote, atomic_increment(args.counters + tile));
    barrier();
    if (load_shared_u32(vote) + 1 != static_cast<u32>(args.split_k)) return false;
    barrier();  // all have read the word before the output tile overwrites it
    if (thread == 0) store_global_u32(args.counters + tile, 0);  // ready for the next launch
    constexpr int kBatch = 4;  // parts under way at once: their loads cover each other's latency
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
#pragma unroll
      for (int t = 0; t < kTokens; ++t) {
        if (!owns(r, t) || !any_token(t)) continue;
        const float* const from = tile_partials + fragment_offset(r, t);
#pragma unroll
        for (int i = 0; i < 4; ++i) acc[r][t][i] = 0.0F;
        for (int part = 0; part < args.split_k; part += kBatch) {
          F32x4 v[kBatch];
#pragma unroll
          for (int p = 0; p < kBatch; ++p) {
            v[p] = load_global_l2(from + (part + p < args.split_k ? part + p : 0) * kTileFloats);
          }
#pragma unroll
          for (int p = 0; p < kBatch; ++p) {
            if (part + p >= args.split_k) break;
#pragma unroll
            for (int i = 0; i < 4; ++i) acc[r][t][i] += v[p].v[i];
          }
        }
      }
    }
    return true;
  }

  // Through shared memory, because y is token-major and the fragments are row-major.
  __device__ __forceinline__ void store_output() const {
    constexpr int kPitch = kOutputTile + 8;  // elements; the 8 spread the banks
    const int output = row_warp * kRows * kFragmentOutputs + lane / 4;
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
#pragma unroll
      for (int t = 0; t < kTokens; ++t) {
        if (!owns(r, t)) continue;
        const int token = (token_warp * kTokens + t) * 8 + lane % 4 * 2;
        const float* const c = acc[r][t];
#pragma unroll
        for (int i = 0; i < kFragmentOutputs / 4; ++i) {
          const int at = (token + i % 2) * kPitch + output + r * kFragmentOutputs + i / 2 * 8;
          const float value = Config::kGeglu ? geglu(c[i % 2], c[i % 2 + 2]) : c[i];
          store_shared_u16(shared + static_cast<u32>(at) * 2, Element::from_f32(value));
        }
      }
    }
    barrier();
    constexpr int kOutputChunks = kOutputTile / 8;  // of one token
    const int output_begin = row_begin / 16 * kFragmentOutputs;
    for (int chunk = thread; chunk < Config::kTokenTile * kOutputChunks; chunk += kThreads) {
      const int token = chunk / kOutputChunks;
      const int column = chunk % kOutputChunks * 8;
      if (token_begin + token >= args.m || output_begin + column >= args.n) continue;
      if constexpr (kCluster) {
        const int row_fragment = column / kFragmentOutputs;
        const int token_fragment = token / 8;
        const int warp = row_fragment / kRows * Config::kTokenWarps + token_fragment / kTokens;
        const int fragment = row_fragment % kRows * kTokens + token_fragment % kTokens;
        if (finisher(warp, fragment) != split) continue;
      }
      u16* to =
          static_cast<u16*>(args.y) + (token_begin + token) * args.ldy + output_begin + column;
      store_global_16(to, load_shared_16(shared + static_cast<u32>(token * kPitch + column) * 2));
    }
  }

  // ---- the whole -------------------------------------------------------------------------------

  __device__ __forceinline__ void run() {
    dependents_launch();
    place();
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
#pragma unroll
      for (int t = 0; t < kTokens; ++t) {
#pragma unroll
        for (int i = 0; i < 4; ++i) acc[r][t][i] = 0.0F;
      }
    }
    if (args.dependent != 0) {
      fetch_early();
    } else {
#pragma unroll
      for (int step = 0; step < kStages - 1; ++step) fetch(step);
    }
    for (int step = 0; step < num_steps; ++step) {
      cp_async_wait<kStages - 2>();  // this thread's part of the step has landed,
      barrier();                     // everyone's has, and everyone left the buffer filled next
      fetch(step + kStages - 1);
      multiply(step);
    }
    cp_async_wait<0>();
    barrier();
    reduce_depth_warps();
    scale_rows();
    if constexpr (kCluster) {
      reduce_cluster();
    } else {
      if (!reduce_workspace()) return;
    }
    store_output();
  }
};

template <class Config>
__device__ __forceinline__ void mma_pipe(const GemmArgs& args) {
  MmaPipe<Config>(args).run();
}

}  // namespace w4

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

#include "copy_pipe.cuh"
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
  using Pipe = CopyPipe<Config, kThreads>;
  static constexpr int kStages = Pipe::kStages;
  static constexpr int kBlocks = Pipe::kBlocks;                            // L0 blocks of a step
  static constexpr int kWarpBlocks = kBlocks / kDepthWarps;                // of one warp
  static constexpr int kRows = Config::kRowTile / 16 / Config::kRowWarps;  // 16-row fragments
  static constexpr int kTokens = Config::kTokenTile / 8 / Config::kTokenWarps;  // 8-token fragments
  static constexpr int kFragments = kRows * kTokens;

  static constexpr bool kCluster = Config::kReduce == 1;
  static constexpr bool kPerRow = Pipe::kPerRow;
  static constexpr bool kScaleWeights = Config::kDequant == 0;
  static constexpr int kGroup = Pipe::kGroup;
  static constexpr bool kPromotes = !kScaleWeights && !kPerRow;
  // Sums are over u = w + 8, and settled with the sums of x.
  static constexpr bool kOffset = Config::kDequant >= 2;
  // Blocks of one warp whose sums share a scale: two only where a group of 128 lies within the
  // warp's share of a step.
  static constexpr int kGroupBlocks = kPromotes && kGroup == 128 && kWarpBlocks % 2 == 0 ? 2 : 1;
  // Unrolling lets loads of the next block run ahead; with many accumulators it makes ptxas spill.
  static constexpr int kAccumulated = kFragments * (kPromotes ? 2 : 1) + (kOffset ? kTokens : 0);
  static constexpr int kUnroll = kAccumulated <= 8 ? kWarpBlocks / kGroupBlocks : 1;

  // Outputs of 16 weight rows, and of the tile.
  static constexpr int kFragmentOutputs = Config::kGeglu ? 8 : 16;
  static constexpr int kOutputTile = Config::kRowTile / 16 * kFragmentOutputs;

  static_assert(Config::kRowTile % (16 * Config::kRowWarps) == 0, "whole 16-row fragments a warp");
  static_assert(Config::kTokenTile % (8 * Config::kTokenWarps) == 0,
                "whole 8-token fragments a warp");
  static_assert(Config::kDepthTile % (64 * kDepthWarps) == 0, "whole L0 blocks a warp");
  static_assert(!(kPerRow && kOffset), "sums over the whole depth lose bits to the offset");
  static_assert(!(kPerRow && kScaleWeights), "a scale per row is cheapest on the final sums");

  const GemmArgs& args;
  const u32 shared = shared_base();
  const int thread = thread_index();
  const int lane = thread % 32;
  const int depth_warp = thread / 32 / kTileWarps;
  const int row_warp = thread / 32 % kTileWarps / Config::kTokenWarps;
  const int token_warp = thread / 32 % Config::kTokenWarps;

  Pipe pipe;

  float acc[kRows][kTokens][4];
  // Sums of one group before its scale (D1 only).
  float group_acc[kPromotes ? kRows : 1][kPromotes ? kTokens : 1][4];
  // Sums of x over the group (D2den and D4 only), the same in rows g and g + 8.
  float x_acc[kOffset ? kTokens : 1][4];

  __device__ __forceinline__ explicit MmaPipe(const GemmArgs& a)
      : args(a), pipe(a, shared, thread) {}

  // ---- shared to registers to tensor core ------------------------------------------------------

  // B fragments of one 16-deep step: x[token][k] read as its transpose.
  __device__ __forceinline__ void load_tokens(u32 x, int block, int s, u32 (&b)[kTokens][2]) const {
    constexpr u32 kTokenBytes = Config::kDepthTile * 2;
    const u32 base = Pipe::token_address(x, token_warp * kTokens, block, s, lane);
#pragma unroll
    for (int t = 0; t + 1 < kTokens; t += 2) {
      ldmatrix_x4(base + static_cast<u32>(t) * 8 * kTokenBytes, b[t][0], b[t][1], b[t + 1][0],
                  b[t + 1][1]);
    }
    if constexpr (kTokens % 2 == 1) {
      constexpr int t = kTokens - 1;
      // Lanes 16..31 give no address here; theirs must still lie within the buffer.
      const u32 own = base - static_cast<u32>(lane / 16) * 8 * kTokenBytes;
      ldmatrix_x2(own + static_cast<u32>(t) * 8 * kTokenBytes, b[t][0], b[t][1]);
    }
  }

  // acc += scale * group_acc, rows g (elements 0, 1) and g + 8 (elements 2, 3).
  __device__ __forceinline__ void promote(u32 s, int depth) {
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      u16 low;
      u16 high;
      Pipe::load_scales(s, row_warp * kRows + r, depth, lane, low, high);
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
    const u32 x = stage + Pipe::kWeightBytes;
    const u32 s = x + Pipe::kActivationBytes;
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
      Pipe::load_scales(s, row_warp * kRows + r, depth, lane, low, high);
      scale[r][0] = pair_of(low);
      scale[r][1] = pair_of(high);
    }
  }

  __device__ __forceinline__ void multiply(int step) {
    const u32 stage = pipe.stage_address(step);
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
    return pipe.token_begin + (token_warp * kTokens + t) * 8 < args.m;
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
        const int row = pipe.row_begin + (row_warp * kRows + r) * 16 + lane / 4;
        if (row >= pipe.weight_rows()) continue;
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
        if (finisher(tile_warp, r * kTokens + t) != pipe.split) continue;
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
    float* const tile_partials = args.partials + pipe.tile * args.split_k * kTileFloats;
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
#pragma unroll
      for (int t = 0; t < kTokens; ++t) {
        if (!owns(r, t) || !any_token(t)) continue;
        store_global_l2(tile_partials + pipe.split * kTileFloats + fragment_offset(r, t),
                        acc[r][t]);
      }
    }
    // One thread's release covers the stores of all: the barrier orders them before it. A fence in
    // every thread, before and after the vote, cost 0.5 us (docs/kernels.md).
    barrier();
    const u32 vote = shared;  // one word of shared memory: how many came before
    if (thread == 0) store_shared_u32(vote, atomic_increment(args.counters + pipe.tile));
    barrier();
    if (load_shared_u32(vote) + 1 != static_cast<u32>(args.split_k)) return false;
    barrier();  // all have read the word before the output tile overwrites it
    if (thread == 0) store_global_u32(args.counters + pipe.tile, 0);  // ready for the next launch
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
    const int output_begin = pipe.row_begin / 16 * kFragmentOutputs;
    for (int chunk = thread; chunk < Config::kTokenTile * kOutputChunks; chunk += kThreads) {
      const int token = chunk / kOutputChunks;
      const int column = chunk % kOutputChunks * 8;
      if (pipe.token_begin + token >= args.m || output_begin + column >= args.n) continue;
      if constexpr (kCluster) {
        const int row_fragment = column / kFragmentOutputs;
        const int token_fragment = token / 8;
        const int warp = row_fragment / kRows * Config::kTokenWarps + token_fragment / kTokens;
        const int fragment = row_fragment % kRows * kTokens + token_fragment % kTokens;
        if (finisher(warp, fragment) != pipe.split) continue;
      }
      u16* to =
          static_cast<u16*>(args.y) + (pipe.token_begin + token) * args.ldy + output_begin + column;
      store_global_16(to, load_shared_16(shared + static_cast<u32>(token * kPitch + column) * 2));
    }
  }

  // ---- the whole -------------------------------------------------------------------------------

  __device__ __forceinline__ void run() {
    dependents_launch();
    pipe.place();
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
#pragma unroll
      for (int t = 0; t < kTokens; ++t) {
#pragma unroll
        for (int i = 0; i < 4; ++i) acc[r][t][i] = 0.0F;
      }
    }
    pipe.template fetch_first<kStages - 1>();
    for (int step = 0; step < pipe.num_steps; ++step) {
      cp_async_wait<kStages - 2>();  // this thread's part of the step has landed,
      barrier();                     // everyone's has, and everyone left the buffer filled next
      pipe.fetch(step + kStages - 1);
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

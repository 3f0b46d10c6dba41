// mma_tile: y = x * dequant(w)^T, or gelu_tanh(x * w_gate^T) * (x * w_up^T), with mma.sync, for
// many tokens.
//
//                  tokens (M)            one CTA: kRowTile x kTokenTile outputs over a share of the
//            +--------+--------+- - -+   depth, in steps of 64 through kStages buffers
//   rows (N) | warp 0 |        |     |   (copy_pipe.cuh)
//   kRowTile | warp 1 |        |     |
//            |  ...   |        |     |     each warp: kWarpRows rows, all tokens of the tile, so
//            +--------+--------+- - -+     that no weight is dequantised twice in a CTA
//            kTokenTile
//
// Dequantising a 16 x 16 operand costs the same whether it meets 8 tokens or 128. So warps are few
// and wide, registers are mostly sums, and what else a thread holds runs through small windows:
//
//   tokens    kWindow pairs of 8-token fragments are loaded ahead of the products, across the ends
//             of 16-deep steps and of buffers;
//   weights   the operands of the next 16-deep step are made while this one's products issue.
//
// A step's barrier therefore comes before its last products: when the loads cross into the next
// buffer, all warps have read this one, and it is filled anew at once. All kStages buffers are
// filled or under way at any time.
//
// Sums of a split meet in the workspace (epilogue.cuh).
//
// Run-time arguments: N, K, M, split, raster. Requires (host side, templates/mma_tile.cc):
//   n % 16 == 0, k % 64 == 0, k % group == 0, x and y 16-byte aligned, ldx and ldy % 8 == 0.
//
// Config: kRowTile, kWarpRows, kTokenTile, kDepthTile (64), kStages, kEvictFirst, kGroupSize (0:
// one
//   scale per row, applied to the final sums; else each weight is scaled, in FP16 or BF16), kGeglu,
//   Element.
#pragma once

#include "copy_pipe.cuh"
#include "dequant.cuh"
#include "epilogue.cuh"
#include "gemm_args.h"
#include "ptx.cuh"

namespace w4 {

template <class Config>
constexpr int num_threads() {
  return 32 * (Config::kRowTile / Config::kWarpRows);
}

template <class Config>
struct MmaTile {
  using Element = typename Config::Element;

  static constexpr int kThreads = num_threads<Config>();
  using Pipe = CopyPipe<Config, kThreads>;
  using End = Epilogue<Config, kThreads, 0>;

  static constexpr int kStages = Pipe::kStages;
  static constexpr bool kPerRow = Pipe::kPerRow;
  static constexpr int kRows = Config::kWarpRows / 16;    // 16-row fragments of a warp
  static constexpr int kTokens = Config::kTokenTile / 8;  // 8-token fragments
  static constexpr int kPairs = (kTokens + 1) / 2;        // of those, as ldmatrix takes them
  static constexpr int kWindow = kPairs < 4 ? kPairs : 4;
  static constexpr int kSteps = 4;                                // 16-deep steps of a buffer
  static constexpr int kGroupSteps = Pipe::kGroup == 32 ? 2 : 4;  // that share a scale
  static constexpr u32 kVote = kStages * Pipe::kStageBytes;       // behind the buffers

  static_assert(Config::kDepthTile == 64, "one block of the layout a step");
  static_assert(Config::kRowTile % Config::kWarpRows == 0 && Config::kWarpRows % 16 == 0,
                "whole 16-row fragments a warp");
  static_assert(Pipe::kStageBytes % 128 == 0, "tokens at multiples of 128 bytes");
  static_assert(kSteps * kPairs % kWindow == 0, "the window turns with the steps");

  const GemmArgs& args;
  const u32 shared = shared_base();
  const int thread = thread_index();
  const int lane = thread % 32;
  const int warp = thread / 32;
  Pipe pipe;

  float acc[kRows * kTokens][4];
  U32x4 words[kRows];   // weights of the buffer that operands are made of
  u32 scale[kRows][2];  // of rows g and g + 8, each twice
  u32 a[2][kRows][4];   // operands of this 16-deep step and of the next
  u32 b[kWindow][4];    // two token fragments each

  __device__ __forceinline__ explicit MmaTile(const GemmArgs& arguments)
      : args(arguments), pipe(arguments, shared, thread) {}

  // ---- shared to registers ---------------------------------------------------------------------

  // Pair `p` of 16-deep step `s`, into its place in the window. What the step adds to an address
  // only turns bits that the swizzle chose, so that one instruction a step makes all of them.
  __device__ __forceinline__ void load_tokens(u32 stage, int s, int p) {
    u32(&to)[4] = b[(s * kPairs + p) % kWindow];
    constexpr u32 kPairBytes = 16 * Config::kDepthTile * 2;
    const u32 first = Pipe::token_address(stage + Pipe::kWeightBytes, 0, 0, 0, lane);
    const u32 at = (first ^ static_cast<u32>(32 * s)) + static_cast<u32>(p) * kPairBytes;
    if (2 * p + 1 < kTokens) {
      ldmatrix_x4(at, to[0], to[1], to[2], to[3]);
    } else {
      // Lanes 16..31 give no address here; theirs must still lie within the buffer.
      ldmatrix_x2(at - static_cast<u32>(lane / 16) * (kPairBytes / 2), to[0], to[1]);
    }
  }

  __device__ __forceinline__ void load_weights(u32 stage) {
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      words[r] = load_shared_16(stage + static_cast<u32>((warp * kRows + r) * 512 + lane * 16));
    }
  }

  // Those that 16-deep step `s` is the first to need.
  __device__ __forceinline__ void load_scales(u32 stage, int s) {
    if (kPerRow || s % kGroupSteps != 0) return;
    const u32 scales = stage + Pipe::kWeightBytes + Pipe::kActivationBytes;
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      u16 low;
      u16 high;
      Pipe::load_scales(scales, warp * kRows + r, 16 * s, lane, low, high);
      scale[r][0] = pair_of(low);
      scale[r][1] = pair_of(high);
    }
  }

  // The operands of 16-deep step `s`.
  __device__ __forceinline__ void dequantise(int s) {
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      u32(&operand)[4] = a[s % 2][r];
      Dequant<Element>::word(words[r].v[s], operand);
      if constexpr (!kPerRow) {
#pragma unroll
        for (int i = 0; i < 4; ++i) operand[i] = Element::mul2(operand[i], scale[r][i % 2]);
      }
    }
  }

  // ---- products --------------------------------------------------------------------------------

  __device__ __forceinline__ void multiply_pair(int s, int p) {
    const u32(&tokens)[4] = b[(s * kPairs + p) % kWindow];
#pragma unroll
    for (int t = 2 * p; t < 2 * p + 2 && t < kTokens; ++t) {
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        float(&sum)[4] = acc[r * kTokens + t];
        Element::mma(sum, a[s % 2][r], tokens + t % 2 * 2, sum);
      }
    }
  }

  // Waits for step `step`, whose buffer all loads from here on read, and refills the buffer of the
  // step before, which every warp has read.
  __device__ __forceinline__ void cross_into(int step) const {
    cp_async_wait<kStages - 2>();  // this thread's part of the step has landed,
    barrier();                     // everyone's has, and everyone left the buffer filled next
    pipe.fetch(step - 1 + kStages);
  }

  // The products of step `step`, its first operands and tokens being here; leaves those of the
  // next.
  __device__ __forceinline__ void multiply(int step) {
    const u32 stage = pipe.stage_address(step);
    u32 next = stage;  // behind the last step its buffer is read once more, for nothing
#pragma unroll
    for (int s = 0; s < kSteps; ++s) {
#pragma unroll
      for (int p = 0; p < kPairs; ++p) {
        const bool crosses = s == kSteps - 1 && p == kPairs - kWindow;
        if (crosses && step + 1 < pipe.num_steps) {
          cross_into(step + 1);
          next = pipe.stage_address(step + 1);
        }
        if (crosses) {
          load_weights(next);
          load_scales(next, 0);
        }
        multiply_pair(s, p);
        const int ahead = s * kPairs + p + kWindow;
        const bool here = ahead < kSteps * kPairs;
        load_tokens(here ? stage : next, ahead / kPairs % kSteps, ahead % kPairs);
        // Early, but for the next buffer's, which have just been asked for.
        if (s < kSteps - 1 && p == 0) {
          load_scales(stage, s + 1);
          dequantise(s + 1);
        }
        if (s == kSteps - 1 && p == kPairs - 1) dequantise(0);
      }
    }
  }

  // ---- the whole -------------------------------------------------------------------------------

  __device__ __forceinline__ void run() {
    dependents_launch();
    pipe.place();
    pipe.template fetch_first<kStages>();
#pragma unroll
    for (int u = 0; u < kRows * kTokens; ++u) {
#pragma unroll
      for (int i = 0; i < 4; ++i) acc[u][i] = 0.0F;
    }
    cp_async_wait<kStages - 1>();
    barrier();
    const u32 stage = pipe.stage_address(0);
    load_weights(stage);
    load_scales(stage, 0);
#pragma unroll
    for (int p = 0; p < kWindow; ++p) load_tokens(stage, 0, p);
    dequantise(0);
    for (int step = 0; step < pipe.num_steps; ++step) multiply(step);

    int units[kRows * kTokens];
#pragma unroll
    for (int u = 0; u < kRows * kTokens; ++u) units[u] = warp * kRows * kTokens + u;
    const End end{args,   pipe.tile,     pipe.split, pipe.row_begin, pipe.token_begin,
                  thread, shared + kVote};
    end.finish(acc, units);
  }
};

template <class Config>
__device__ __forceinline__ void mma_tile(const GemmArgs& args) {
  MmaTile<Config>(args).run();
}

}  // namespace w4

// The way of weights, activations and scales into shared memory that mma_pipe and mma_tile share:
// which tile and which share of the depth a CTA computes, and a ring of buffers that cp.async fills
// step by step.
//
//   one buffer:  w  [kRowTile/16][kDepthTile/64][512 B]  layout L0
//                x  [kTokenTile][kDepthTile]  16-byte chunks, swizzled by token % 8
//                s  [kRowTile/16][groups of a step][16]
//
// Config: kRowTile, kTokenTile, kDepthTile, kStages, kEvictFirst (weights leave L2 first),
// kGroupSize
//   (0: one scale per row, none of them here), kGeglu.
#pragma once

#include "gemm_args.h"
#include "ptx.cuh"

namespace w4 {

template <class Config, int kThreads>
struct CopyPipe {
  static constexpr int kStages = Config::kStages;
  static constexpr int kBlocks = Config::kDepthTile / 64;  // L0 blocks of a step
  static constexpr bool kPerRow = Config::kGroupSize == 0;
  static constexpr int kGroup = kPerRow ? Config::kDepthTile : Config::kGroupSize;
  static constexpr int kStepGroups =
      kPerRow ? 0 : (Config::kDepthTile > kGroup ? Config::kDepthTile / kGroup : 1);

  static constexpr int kWeightBytes = Config::kRowTile * Config::kDepthTile / 2;
  static constexpr int kActivationBytes = Config::kTokenTile * Config::kDepthTile * 2;
  static constexpr int kScaleBytes = Config::kRowTile * kStepGroups * 2;
  static constexpr int kStageBytes = kWeightBytes + kActivationBytes + kScaleBytes;

  static_assert(kStages >= 2, "one buffer is read while another is filled");

  const GemmArgs& args;
  const u32 shared;
  const int thread;

  int tile;         // linear index of the output tile
  int row_begin;    // first weight row of the tile
  int token_begin;  // first token of the tile
  int split;        // which share of the depth
  int step_begin;   // first depth step of the share
  int num_steps;

  const char* weights_from;     // this thread's (or the tile's) first chunk of weights
  const u16* activations_from;  // this thread's first chunk of activations
  const char* scales_from;      // this thread's first chunk of the scales of the whole depth
  int row_tiles_left;           // 16-row tiles from there to the last row
  int tokens_left;              // tokens from there to the last
  u64 policy;                   // of the weights in L2 (kEvictFirst only)

  __device__ __forceinline__ CopyPipe(const GemmArgs& a, u32 shared_memory, int thread_of_block)
      : args(a), shared(shared_memory), thread(thread_of_block) {}

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
  static constexpr int kRowChunks = kBlocks * 32;                     // of 16 weight rows
  static constexpr int kTokenChunks = Config::kDepthTile / 8;         // of one token
  static constexpr int kScaleChunks = kPerRow ? 1 : kStepGroups * 2;  // of 16 rows
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
    if constexpr (!kPerRow) {
      const long long scale_tile = row_begin / 16 + thread / kScaleChunks;
      scales_from = static_cast<const char*>(args.scales) + scale_tile * (args.k / kGroup) * 32 +
                    thread % kScaleChunks * 16;
    }
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
      if ((i + 1) * kThreads > kChunks && chunk >= kChunks) break;
      const int row_tile = kWholePasses ? i / kRowPasses * kRowStep : chunk / kRowChunks;
      const int within = kWholePasses ? i % kRowPasses * kThreads : chunk % kRowChunks;
      copy_weights(step, to + static_cast<u32>(chunk) * 16,
                   from + static_cast<long long>(row_tile) * row_bytes + within * 16,
                   row_tile < row_tiles_left);
    }
  }

  __device__ __forceinline__ void fetch_activations(int step, u32 to) const {
    constexpr int kChunks = Config::kTokenTile * kTokenChunks;
    const u16* from = activations_from + step * Config::kDepthTile;
    const long long stride = kTokenStep * args.ldx;
#pragma unroll
    for (int i = 0; i < (kChunks + kThreads - 1) / kThreads; ++i) {
      if ((i + 1) * kThreads > kChunks && thread + i * kThreads >= kChunks) break;
      const int token = thread / kTokenChunks + i * kTokenStep;
      const int swizzled = token * kTokenChunks + ((thread % kTokenChunks) ^ (token & 7));
      copy(step, to + static_cast<u32>(swizzled) * 16, from, i * kTokenStep < tokens_left);
      from += stride;
    }
  }

  __device__ __forceinline__ void fetch_scales(int step, u32 to) const {
    if constexpr (!kPerRow) {
      constexpr int kChunks = kScaleBytes / 16;
      constexpr int kRowTileStep = kThreads / kScaleChunks;
      static_assert(kThreads % kScaleChunks == 0, "a pass over the scales covers whole row tiles");
      const char* from = scales_from + (step_begin + step) * Config::kDepthTile / kGroup * 32;
      const long long stride = static_cast<long long>(kRowTileStep) * (args.k / kGroup) * 32;
#pragma unroll
      for (int i = 0; i < (kChunks + kThreads - 1) / kThreads; ++i) {
        const int chunk = thread + i * kThreads;
        if ((i + 1) * kThreads > kChunks && chunk >= kChunks) break;
        copy(step, to + static_cast<u32>(chunk) * 16, from,
             row_begin / 16 + chunk / kScaleChunks < weight_rows() / 16);
        from += stride;
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

  // The first kSteps steps. Launched to begin early, weights and scales may be read already, x may
  // not; all that comes early counts into the first group of copies.
  template <int kSteps>
  __device__ __forceinline__ void fetch_first() const {
    if (args.dependent != 0) {
#pragma unroll
      for (int step = 0; step < kSteps; ++step) {
        if (step >= num_steps) break;
        fetch_weights(step, stage_address(step));
        fetch_scales(step, stage_address(step) + kWeightBytes + kActivationBytes);
      }
      dependency_wait();
#pragma unroll
      for (int step = 0; step < kSteps; ++step) {
        if (step < num_steps) fetch_activations(step, stage_address(step) + kWeightBytes);
        cp_async_commit();
      }
    } else {
#pragma unroll
      for (int step = 0; step < kSteps; ++step) fetch(step);
    }
  }

  // ---- shared to registers ---------------------------------------------------------------------

  // What this lane gives ldmatrix as address of two token fragments, `fragment` and the next, at
  // 16-deep step `s` of a block: x[token][k] is read as its transpose.
  __device__ __forceinline__ static u32 token_address(u32 x, int fragment, int block, int s,
                                                      int lane) {
    constexpr u32 kTokenBytes = Config::kDepthTile * 2;
    const int row = lane % 8;
    const int upper_half = (lane / 8) % 2;  // depth 8..15 of the step
    const int second = lane / 16;           // the second of two token fragments
    const u32 chunk = static_cast<u32>((2 * s) ^ (upper_half ^ row)) * 16;
    return x + static_cast<u32>((fragment + second) * 8 + row) * kTokenBytes +
           static_cast<u32>(block) * 128 + chunk;
  }

  // Scales of rows g and g + 8 of a 16-row fragment, for the group that holds depth `depth` of the
  // step.
  __device__ __forceinline__ static void load_scales(u32 s, int fragment, int depth, int lane,
                                                     u16& low, u16& high) {
    const int group = kGroup < Config::kDepthTile ? depth / kGroup : 0;
    const u32 at = s + static_cast<u32>((fragment * kStepGroups + group) * 32 + lane / 4 * 2);
    low = load_shared_u16(at);
    high = load_shared_u16(at + 16);
  }
};

}  // namespace w4

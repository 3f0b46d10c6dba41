// From FP32 sums in registers to y: the end that mma_tile, mma_reg and bulk_pipe share, and gemv in
// part.
//
// A tile of kRowTile x kTokenTile outputs is made of units, the 16 x 8 fragments of m16n8k16: unit
// u is 16-row fragment u / kTokenFragments and 8-token fragment u % kTokenFragments. A warp holds
// four values of each of its units in every lane (rows g, g, g + 8, g + 8; tokens 2t, 2t + 1).
//
//   split_k > 1: the CTAs of a tile leave FP32 partials in the workspace, and the last to arrive
//                adds all of them in the order of the split, so the result never depends on who is
//                last; the counters are zero again for the next launch.
//   kGeglu:      a packed 16-row fragment holds 8 gate rows above 8 up rows, so a lane has the gate
//                (values 0, 1) and the up sum (2, 3) of one column of y.
//
// Config: kRowTile, kTokenTile, kGroupSize (0: one scale per row, applied here), kGeglu, Element.
#pragma once

#include "gelu.cuh"
#include "gemm_args.h"
#include "ptx.cuh"

namespace w4 {

// The shares of one tile's split: kTileFloats FP32 sums of each, in places of four.
template <int kTileFloats, int kThreads, int kBarrier>
struct SplitShares {
  static constexpr int kNone = -1;  // in place of a place

  const GemmArgs& args;
  int tile;      // linear index of the output tile
  int split;     // which share of the depth
  int thread;    // of kThreads that take part
  u32 vote;      // shared memory: 4 bytes that nothing else uses
  int team = 0;  // of several in a CTA, each of kThreads with a barrier and a tile of its own

  // sums[j] belongs in place places[j]. Whether this CTA is the one that finishes the tile, then
  // with the sums of all. All kThreads call.
  template <int kOwned>
  __device__ __forceinline__ bool gather(float (&sums)[kOwned][4],
                                         const int (&places)[kOwned]) const {
    constexpr long long kShare = kTileFloats;
    float* const partials = args.partials + tile * args.split_k * kShare;
#pragma unroll
    for (int j = 0; j < kOwned; ++j) {
      if (places[j] != kNone) store_global_l2(partials + split * kShare + places[j] * 4, sums[j]);
    }
    // One thread's release covers the stores of all: the barrier orders them before it.
    barrier_named(kBarrier + team, kThreads);
    if (thread == 0) store_shared_u32(vote, atomic_increment(args.counters + tile));
    barrier_named(kBarrier + team, kThreads);
    if (load_shared_u32(vote) + 1 != static_cast<u32>(args.split_k)) return false;
    if (thread == 0) store_global_u32(args.counters + tile, 0);  // ready for the next launch
    add_shares<kOwned>(partials, sums, places);
    return true;
  }

 private:
  // sums = what all shares left in their places, in the order of the split; from the kFirst-th on,
  // as many at a time as there are registers for their addresses.
  template <int kOwned, int kFirst = 0>
  __device__ __forceinline__ void add_shares(const float* partials, float (&sums)[kOwned][4],
                                             const int (&places)[kOwned]) const {
    constexpr long long kShare = kTileFloats;
    constexpr int kEnd = kOwned <= 16 || kFirst + 8 > kOwned ? kOwned : kFirst + 8;
    // No branch stands between the loads: what is not wanted reads the first place or part again.
    constexpr int kBatch = batch_of(kEnd - kFirst);
    const float* from[kEnd - kFirst];
#pragma unroll
    for (int j = kFirst; j < kEnd; ++j) {
      from[j - kFirst] = partials + (places[j] != kNone ? places[j] * 4 : 0);
#pragma unroll
      for (int i = 0; i < 4; ++i) sums[j][i] = 0.0F;
    }
    for (int part = 0; part < args.split_k; part += kBatch) {
      F32x4 v[kBatch][kEnd - kFirst];
#pragma unroll
      for (int p = 0; p < kBatch; ++p) {
        const long long at = part + p < args.split_k ? (part + p) * kShare : 0;
#pragma unroll
        for (int j = 0; j < kEnd - kFirst; ++j) v[p][j] = load_global_l2(from[j] + at);
      }
#pragma unroll
      for (int p = 0; p < kBatch; ++p) {
        if (part + p >= args.split_k) break;
#pragma unroll
        for (int j = kFirst; j < kEnd; ++j) {
#pragma unroll
          for (int i = 0; i < 4; ++i) sums[j][i] += v[p][j - kFirst].v[i];
        }
      }
    }
    if constexpr (kEnd < kOwned) add_shares<kOwned, kEnd>(partials, sums, places);
  }

  // Parts that are under way at once: their loads cover each other's latency.
  __device__ __forceinline__ static constexpr int batch_of(int owned) {
    return owned > 4 ? 1 : (owned > 2 ? 4 : 8);
  }
};

template <class Config, int kThreads, int kBarrier>
struct Epilogue {
  using Element = typename Config::Element;

  static constexpr int kTokenFragments = Config::kTokenTile / 8;
  static constexpr int kUnits = Config::kRowTile / 16 * kTokenFragments;
  static constexpr int kNone = -1;  // in place of a unit
  using Shares = SplitShares<Config::kRowTile * Config::kTokenTile, kThreads, kBarrier>;

  const GemmArgs& args;
  int tile;         // linear index of the output tile
  int split;        // which share of the depth
  int row_begin;    // first weight row of the tile
  int token_begin;  // first token of the tile
  int thread;       // of kThreads that take part
  u32 vote;         // shared memory: 4 bytes that nothing else uses
  int team = 0;     // as in SplitShares

  // Rows of the packed weight.
  __device__ __forceinline__ static int weight_rows(const GemmArgs& args) {
    return Config::kGeglu ? 2 * args.n : args.n;
  }

  __device__ __forceinline__ bool any_token(int unit) const {
    return token_begin + unit % kTokenFragments * 8 < args.m;
  }

  // sums[j] belongs to unit units[j] of this warp. All kThreads call; the sums of a split are
  // changed.
  template <int kOwned>
  __device__ __forceinline__ void finish(float (&sums)[kOwned][4],
                                         const int (&units)[kOwned]) const {
    if (args.split_k > 1) {
      // Of many units, those beyond M go the same way: to know which they are takes registers.
      constexpr bool kMany = kOwned > 16;
      int places[kOwned];
#pragma unroll
      for (int j = 0; j < kOwned; ++j) {
        const bool nothing = units[j] == kNone || (!kMany && !any_token(units[j]));
        places[j] = nothing ? Shares::kNone : units[j] * 32 + thread % 32;
      }
      if (!Shares{args, tile, split, thread, vote, team}.gather(sums, places)) return;
    }
#pragma unroll
    for (int j = 0; j < kOwned; ++j) store(units[j], sums[j]);
  }

  // The same where one warp has the whole tile: sums[j] belongs to unit j. Nothing is decided by
  // branches, so that the latencies of several units cover each other.
  __device__ __forceinline__ void finish_whole(float (&sums)[kUnits][4]) const {
    const int lane = thread % 32;
    if (args.split_k > 1) {
      int places[kUnits];
#pragma unroll
      for (int j = 0; j < kUnits; ++j) {
        places[j] = any_token(j) ? j * 32 + lane : Shares::kNone;
      }
      if (!Shares{args, tile, split, thread, vote, team}.gather(sums, places)) return;
    }
#pragma unroll
    for (int row = 0; row < Config::kRowTile; row += 16) {
      const Rows rows = rows_at(row);
#pragma unroll
      for (int first = 0; first < kTokenFragments; first += kBatch) {
        float v[kBatch][4];
#pragma unroll
        for (int b = 0; b < kBatch; ++b) {
          // Beyond the last one nothing is stored.
          const int t = first + b < kTokenFragments ? first + b : first;
#pragma unroll
          for (int i = 0; i < 4; ++i) v[b][i] = sums[row / 16 * kTokenFragments + t][i];
        }
        store_fragments(rows, first, 1, v);
      }
    }
  }

  // The same of the token fragments first, first + step, ... alone, where `load(r, n, part)` gives
  // what share `part` has summed up of the n-th of them in 16-row fragment r.
  template <class Load>
  __device__ __forceinline__ void finish_some(int first, int step, const Load& load) const {
#pragma unroll
    for (int row = 0; row < Config::kRowTile; row += 16) {
      const Rows rows = rows_at(row);
      for (int n = 0; first + n * step < kTokenFragments; n += kBatch) {
        float v[kBatch][4] = {};
        for (int part = 0; part < args.split_k; ++part) {
          F32x4 share[kBatch];
#pragma unroll
          for (int b = 0; b < kBatch; ++b) {
            const bool valid = first + (n + b) * step < kTokenFragments;
            share[b] = load(row / 16, valid ? n + b : n, part);
          }
#pragma unroll
          for (int b = 0; b < kBatch; ++b) {
#pragma unroll
            for (int i = 0; i < 4; ++i) v[b][i] += share[b].v[i];
          }
        }
        store_fragments(rows, first + n * step, step, v);
      }
    }
  }

  // For CTAs that have added their shares otherwise.
  __device__ __forceinline__ void store(int unit, const float* sums) const {
    if (unit == kNone) return;
    const int row = row_begin + unit / kTokenFragments * 16;
    if (row >= weight_rows(args)) return;
    const int lane = thread % 32;
    float v[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) v[i] = sums[i];
    if constexpr (Config::kGroupSize == 0) {
      const u16* const scales = static_cast<const u16*>(args.scales) + row + lane / 4;
      const float scale[2] = {Element::to_f32(load_global_u16(scales)),
                              Element::to_f32(load_global_u16(scales + 8))};
#pragma unroll
      for (int i = 0; i < 4; ++i) v[i] *= scale[i / 2];
    }
    // Transposed, a lane has neighbouring columns of one token: y is written in whole sectors.
    const int token = token_begin + unit % kTokenFragments * 8 + lane / 4;
    u16* const y = static_cast<u16*>(args.y) + token * args.ldy;
    u32 out[2];
    columns(v, out);
    if constexpr (Config::kGeglu) {
      if (token < args.m) store_global_4(y + row / 2 + lane % 4 * 2, out[0]);
    } else {
      const int column = row + (lane % 2 == 1 ? 8 : 0) + lane % 4 / 2 * 4;
      if (token < args.m) store_global_8(y + column, out[0], out[1]);
    }
  }

 private:
  static constexpr int kBatch = 4;  // units under way

  // 16 rows of the tile.
  struct Rows {
    bool valid;
    float scale[2];  // of rows g and g + 8
    u16* y;          // their first column
  };
  __device__ __forceinline__ Rows rows_at(int row) const {
    Rows rows = {row_begin + row < weight_rows(args), {1.0F, 1.0F}, nullptr};
    if constexpr (Config::kGroupSize == 0) {
      const u16* const scales = static_cast<const u16*>(args.scales) +
                                (rows.valid ? row_begin + row : 0) + thread % 32 / 4;
      rows.scale[0] = Element::to_f32(load_global_u16(scales));
      rows.scale[1] = Element::to_f32(load_global_u16(scales + 8));
    }
    rows.y = static_cast<u16*>(args.y) + (row_begin + row) / (Config::kGeglu ? 2 : 1);
    return rows;
  }

  // Stores token fragments `first`, first + step, ... of the tile.
  __device__ __forceinline__ void store_fragments(const Rows& rows, int first, int step,
                                                  const float (&sums)[kBatch][4]) const {
    const int lane = thread % 32;
    u32 out[kBatch][2];
#pragma unroll
    for (int b = 0; b < kBatch; ++b) {
      float scaled[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        scaled[i] = Config::kGroupSize == 0 ? sums[b][i] * rows.scale[i / 2] : sums[b][i];
      }
      columns(scaled, out[b]);
    }
#pragma unroll
    for (int b = 0; b < kBatch; ++b) {
      const int fragment = first + b * step;
      const int token = token_begin + fragment * 8 + lane / 4;
      const bool valid = rows.valid && fragment < kTokenFragments && token < args.m;
      u16* const y = rows.y + token * args.ldy;
      if constexpr (Config::kGeglu) {
        store_global_4_if(valid, y + lane % 4 * 2, out[b][0]);
      } else {
        const int column = (lane % 2 == 1 ? 8 : 0) + lane % 4 / 2 * 4;
        store_global_8_if(valid, y + column, out[b][0], out[b][1]);
      }
    }
  }

  // What lane 4g + t stores of a unit for its token g: columns 2t, 2t + 1 of 8 (GeGLU), or four of
  // 16.
  __device__ __forceinline__ static void columns(const float* v, u32 (&out)[2]) {
    if constexpr (Config::kGeglu) {
      out[0] = transpose_8x8(Element::pack2(geglu(v[0], v[2]), geglu(v[1], v[3])));
    } else {
      // Columns 2t, 2t + 1 of both halves; two lanes trade, so that each has four of one half.
      const u32 low = transpose_8x8(Element::pack2(v[0], v[1]));
      const u32 high = transpose_8x8(Element::pack2(v[2], v[3]));
      const bool odd = thread_index() % 2 == 1;
      const u32 traded = shuffle_xor(odd ? low : high, 1);
      out[0] = odd ? traded : low;
      out[1] = odd ? high : traded;
    }
  }
};

}  // namespace w4

// gemv: y = x * dequant(w)^T on CUDA cores, for a few tokens. The control against which the
// families on tensor cores are judged: they must win by their products, not by their loads.
//
//        depth (K)              one CTA: kRowTile x kTokenTile outputs over a share of the depth,
//   +------+------+- -+------+  in steps of kDepthTile = 64 * kBlocks * kDepthWarps
//   | warp | warp |   | warp |
//   |  0   |  1   |   |  n-1 |    each warp: all rows of the tile, kBlocks blocks (64 deep) of each
//   +------+------+- -+------+    step, the weights of kAhead blocks under way in its registers
//
//   one block of 16 rows, 512 bytes        a lane, 4g + t, multiplies what its 16 bytes hold: rows
//   of layout L0 (core/weight_layout.h)    g and g + 8 at 16 depths, those of t in each mma step;
//    g  | t=0 t=1 t=2 t=3 |                its x, 16 floats for a token and block, come from shared
//   g+8 | t=0 t=1 t=2 t=3 |                memory, the same for all g
//
// Weights go as in mma_reg from global memory straight to registers, and no barrier stands between
// a warp's first load and its last product. A warp converts its own slice of x to FP32 once and
// leaves it in its own piece of shared memory, in the order in which lanes read it. The four lanes
// of a row add up by shuffles at the end, the warps in shared memory, a split in the workspace.
//
// Run-time arguments: N, K, M, split. Requires (host side, templates/gemv.cc):
//   rows % 16 == 0, k % kDepthTile == 0, k % group == 0, x and y 16-byte aligned, ldx % 8 == 0.
//
// Config: kRowTile, kTokenTile (1, 2, 4, 8), kDepthWarps, kBlocks, kAhead, kDenormals (D2den; FP16
//   in groups only), kGroupSize (0: one scale per row), kGeglu, Element. Everything is summed in
//   FP32, and scales multiply the sums of each group (D1).
#pragma once

#include "dequant.cuh"
#include "epilogue.cuh"
#include "gelu.cuh"
#include "gemm_args.h"
#include "ptx.cuh"

namespace w4 {

template <class Config>
constexpr int num_threads() {
  return 32 * Config::kDepthWarps;
}

template <bool kDenormals>
struct FloatWeights : FloatDequant {};
template <>
struct FloatWeights<true> : FloatDenormalDequant {};

template <class Config>
struct Gemv {
  using Element = typename Config::Element;
  using Weights = FloatWeights<Config::kDenormals>;

  static constexpr int kWarps = Config::kDepthWarps;
  static constexpr int kThreads = 32 * kWarps;
  static constexpr int kRows = Config::kRowTile / 16;  // 16-row fragments
  static constexpr int kTokens = Config::kTokenTile;
  static constexpr int kBlocks = Config::kBlocks;  // of a warp in a step
  static constexpr int kAhead = Config::kAhead;
  static constexpr int kStepBlocks = kBlocks * kWarps;

  static constexpr bool kPerRow = Config::kGroupSize == 0;
  static constexpr int kGroup = kPerRow ? 64 : Config::kGroupSize;
  static constexpr int kGroupSteps = kGroup >= 64 ? 4 : 2;  // 16-deep steps of a block in a group
  static constexpr int kBlockGroups = 4 / kGroupSteps;      // scales of a row in a block
  // A group of 128 is two blocks; where a warp has only one of them, both take the scale.
  static constexpr int kGroupBlocks = kGroup == 128 && kBlocks % 2 == 0 ? 2 : 1;

  // A warp's slice: x as floats [kTokens][kBlocks][step 4][t 4][4], then, for nibbles as denormals,
  // what the offset of 8 adds to the sums of each step, negated [kTokens][kBlocks][step 4].
  static constexpr u32 kStepBytes = 64;
  static constexpr u32 kBlockBytes = 4 * kStepBytes;
  static constexpr u32 kOffsets = kTokens * kBlocks * kBlockBytes;
  static constexpr u32 kSliceBytes = kOffsets + (Config::kDenormals ? kTokens * kBlocks * 16 : 0);

  // Sums of a tile: [row fragment][token][g][rows g and g + 8], in FP32. A lane ends with some of
  // its g; a thread takes places of four, two neighbouring g.
  static constexpr int kLaneSums = 2 * kRows * kTokens;
  static constexpr int kKept = kLaneSums < 4 ? 1 : kLaneSums / 4;  // after the lanes of a row
  static constexpr int kPlaces = 4 * kRows * kTokens;
  static constexpr u32 kSumBytes = kPlaces * 16;
  // Each warp leaves its sums where its slice was.
  static constexpr u32 kWarpBytes = kSliceBytes > kSumBytes ? kSliceBytes : kSumBytes;
  static constexpr u32 kVote = kWarps * kWarpBytes;

  static_assert(kRows <= 4, "one load of scales serves four fragments");
  static_assert(kAhead == 1 || kAhead % kBlocks == 0 || kBlocks % kAhead == 0,
                "the ring of weights and the blocks of a step must turn together");
  static_assert(!Config::kDenormals || !kPerRow, "the offset of 8 settles group by group");

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
  float group_acc[kRows][kTokens][2];  // rows g and g + 8
  float offsets[kTokens];
  float acc[kRows][kTokens][2];

  __device__ __forceinline__ explicit Gemv(const GemmArgs& a) : args(a) {}

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
    if (args.m > kTokens) {
      const int token_tiles = (args.m + kTokens - 1) / kTokens;
      linear = tile / token_tiles;
      token_tile = tile - linear * token_tiles;
    }
    row_begin = linear * Config::kRowTile;
    token_begin = token_tile * kTokens;
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

  // Item and `turn` are both even or both odd: of two blocks of a group, the second has the scales.
  __device__ __forceinline__ void request_scales(int i, int slot, int turn) {
    if (kGroupBlocks == 2 && turn % 2 == 0) return;
    if constexpr (!kPerRow) {
      const int depth = (first_block + block_of(i)) * 64;
#pragma unroll
      for (int g = 0; g < kBlockGroups; ++g) {
        scale_words[slot][g] = has_scales ? load_global_u32(scales + (depth / kGroup + g) * 32) : 0;
      }
    }
  }

  // ---- x to floats in this warp's own shared memory ---------------------------------------------

  // A lane takes 8 deep at a time: the depths 2t, 2t+1 of all t, or 2t+8, 2t+9, of one step.
  __device__ __forceinline__ void stage_tokens(int step) const {
    constexpr int kChunks = kBlocks * 8;  // of a token
    constexpr int kAll = kTokens * kChunks;
    constexpr int kPasses = (kAll + 31) / 32;
    constexpr int kBatch = kPasses < 4 ? kPasses : 4;  // under way at once
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
        if (index < kAll && token_begin + token < args.m) {
          v[i] = load_global_16_cached(from + token * args.ldx + index % kChunks * 8);
        }
      }
#pragma unroll
      for (int i = 0; i < kBatch; ++i) store_chunk((pass + i) * 32 + lane, kAll, v[i]);
    }
    warp_sync();
  }

  // Chunk `index` of [token][block][step][half]; of `all` there are, what lies beyond is nothing.
  __device__ __forceinline__ void store_chunk(int index, int all, const U32x4& pairs) const {
    const bool is_upper = index % 2 == 1;
    const u32 at = static_cast<u32>(index / 2);
    float total = 0.0F;
#pragma unroll
    for (u32 t = 0; t < 4; ++t) {
      float first = Element::to_f32(static_cast<u16>(pairs.v[t]));
      float second = Element::to_f32(static_cast<u16>(pairs.v[t] >> 16));
      if constexpr (Config::kDenormals) {
        total += first + second;
        first *= is_upper ? Weights::power_of(2) : Weights::power_of(0);
        second *= Weights::power_of(1);
        static_assert(Weights::power_of(1) == Weights::power_of(3), "");
      }
      if (index < all) {
        store_shared_f32x2(slice + at * kStepBytes + t * 16 + (is_upper ? 8 : 0), first, second);
      }
    }
    if constexpr (Config::kDenormals) {
      // Any lane of a row may settle any step's offset, as long as each is settled once: lane t
      // that of step t, or, in groups of half a block, two lanes half of it each.
      constexpr float kOffset = kGroupSteps == 4 ? -8.0F : -4.0F;
      total += shuffle_xor(total, 1);
      if (index < all && !is_upper) store_shared_f32(slice + kOffsets + at * 4, kOffset * total);
    }
  }

  // ---- products ---------------------------------------------------------------------------------

  // Adds, to the offsets of a group, those of its share of block `b`.
  __device__ __forceinline__ void add_offsets(int b, int half, bool first) {
    const int t = lane % 4;
    const int step = kGroupSteps == 4 ? t : half * kGroupSteps + t % 2;
#pragma unroll
    for (int token = 0; token < kTokens; ++token) {
      const u32 at = static_cast<u32>((token * kBlocks + b) * 4 + step) * 4;
      const float offset = load_shared_f32(slice + kOffsets + at);
      offsets[token] = first ? offset : offsets[token] + offset;
    }
  }

  // One word of fragment `r`, the weights of a 16-deep step, by the step's x of every token.
  __device__ __forceinline__ void multiply_word(u32 word, int r, const F32x4 (&x)[kTokens],
                                                bool first) {
    float w[8];
    Weights::word(word, w);
#pragma unroll
    for (int token = 0; token < kTokens; ++token) {
#pragma unroll
      for (int n = 0; n < 8; ++n) {
        float& sum = group_acc[r][token][n % 2];
        sum = fma_f32(w[n], x[token].v[depth_of_nibble(n)], first && n < 2 ? 0.0F : sum);
      }
    }
  }

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
      for (int token = 0; token < kTokens; ++token) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          float sum = group_acc[r][token][i];
          if constexpr (Config::kDenormals)
            sum = fma_f32(sum, Weights::settle_of(i), offsets[token]);
          acc[r][token][i] = fma_f32(scale[i], sum, acc[r][token][i]);
        }
      }
    }
  }

  // Item i, block b of its step, whose weights wait in `slot`; those of item i + kAhead are
  // requested in their place.
  __device__ __forceinline__ void multiply(int i, int b, int slot, int turn) {
    const bool more = i + kAhead < num_items;
    const bool begins = kGroupBlocks == 1 || turn % 2 == 0;
    const bool ends = kGroupBlocks == 1 || turn % 2 == 1;
    const u32 lane_x = slice + static_cast<u32>(b) * kBlockBytes + static_cast<u32>(lane % 4) * 16;
#pragma unroll
    for (int s = 0; s < 4; ++s) {
      const int half = s / kGroupSteps;
      const bool first_of_block = s % kGroupSteps == 0;
      F32x4 x[kTokens];
#pragma unroll
      for (int token = 0; token < kTokens; ++token) {
        x[token] = load_shared_f32x4(lane_x + static_cast<u32>(token * kBlocks) * kBlockBytes +
                                     static_cast<u32>(s) * kStepBytes);
      }
      if (Config::kDenormals && first_of_block) add_offsets(b, half, begins);
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        multiply_word(words[slot][r].v[s], r, x, begins && first_of_block);
        if (s == 3 && more) request(i + kAhead, slot, r);
      }
      if (ends && s % kGroupSteps == kGroupSteps - 1) promote(slot, half);
    }
    if (more) request_scales(i + kAhead, slot, turn + kAhead);
  }

  // ---- the sums of lanes, warps and CTAs --------------------------------------------------------

  // Adds up over the four lanes of a row; lane t is left with the sums t * kKept and following of
  // its [fragment][token][row g, g + 8], or, where there are only two, lanes 0 and 1 with the
  // first.
  __device__ __forceinline__ void add_lanes(float (&kept)[kKept]) const {
    constexpr int kHalf = kLaneSums / 2;
    const auto sum = [this](int i) { return acc[i / 2 / kTokens][i / 2 % kTokens][i % 2]; };
    const bool second = lane & 2;
    float half[kHalf];
#pragma unroll
    for (int i = 0; i < kHalf; ++i) {
      const float mine = second ? sum(kHalf + i) : sum(i);
      half[i] = mine + shuffle_xor(second ? sum(i) : sum(kHalf + i), 2);
    }
    if constexpr (kHalf == 1) {
      kept[0] = half[0] + shuffle_xor(half[0], 1);
    } else {
      const bool odd = lane & 1;
#pragma unroll
      for (int i = 0; i < kKept; ++i) {
        const float mine = odd ? half[kKept + i] : half[i];
        kept[i] = mine + shuffle_xor(odd ? half[i] : half[kKept + i], 1);
      }
    }
  }

  __device__ __forceinline__ void store_lane_sums(const float (&kept)[kKept]) const {
    const int g = lane / 4;
    const int t = lane % 4;
    if (kLaneSums < 4 && t % 2 == 1) return;
    const int begin = kLaneSums < 4 ? t / 2 : t * kKept;
#pragma unroll
    for (int i = 0; i < kKept; ++i) {
      const int sum = begin + i;
      store_shared_f32(slice + static_cast<u32>(sum / 2 * 16 + g * 2 + sum % 2) * 4, kept[i]);
    }
  }

  __device__ __forceinline__ void finish() {
    float kept[kKept];
    add_lanes(kept);
    warp_sync();  // every lane has read its x: the sums may take their place
    store_lane_sums(kept);
    barrier();
    using Shares = SplitShares<Config::kRowTile * kTokens, kThreads, 0>;
    constexpr int kOwned = (kPlaces + kThreads - 1) / kThreads;
    float sums[kOwned][4];
    int places[kOwned];
#pragma unroll
    for (int j = 0; j < kOwned; ++j) {
      const int at = thread + j * kThreads;
      places[j] = at < kPlaces ? at : Shares::kNone;
#pragma unroll
      for (int i = 0; i < 4; ++i) sums[j][i] = 0.0F;
      if (at >= kPlaces) continue;
#pragma unroll
      for (int w = 0; w < kWarps; ++w) {
        const F32x4 v = load_shared_f32x4(shared + static_cast<u32>(w) * kWarpBytes +
                                          static_cast<u32>(at) * 16);
#pragma unroll
        for (int i = 0; i < 4; ++i) sums[j][i] += v.v[i];
      }
    }
    if (args.split_k > 1 &&
        !Shares{args, tile, split, thread, shared + kVote}.gather(sums, places)) {
      return;
    }
#pragma unroll
    for (int j = 0; j < kOwned; ++j) {
      if (places[j] != Shares::kNone) store_place(places[j], sums[j]);
    }
  }

  // Rows g, g + 8, g + 1, g + 9 of one fragment and token; of geglu, gate and up of two columns.
  __device__ __forceinline__ void store_place(int at, const float* sums) const {
    const int row = row_begin + at / 4 / kTokens * 16;
    const int token = token_begin + at / 4 % kTokens;
    const int g = at % 4 * 2;
    if (row >= rows() || token >= args.m) return;
    u16* const y = static_cast<u16*>(args.y) + token * args.ldy + (Config::kGeglu ? row / 2 : row);
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      float upper = sums[2 * i];  // row g + i of the fragment
      float lower = sums[2 * i + 1];
      if constexpr (kPerRow) {
        const u16* const of_row = static_cast<const u16*>(args.scales) + row + g + i;
        upper *= Element::to_f32(load_global_u16(of_row));
        lower *= Element::to_f32(load_global_u16(of_row + 8));
      }
      if constexpr (Config::kGeglu) {
        store_global_u16(y + g + i, Element::from_f32(geglu(upper, lower)));
      } else {
        store_global_u16(y + g + i, Element::from_f32(upper));
        store_global_u16(y + g + i + 8, Element::from_f32(lower));
      }
    }
  }

  // ---- the whole --------------------------------------------------------------------------------

  __device__ __forceinline__ void run() {
    dependents_launch();
    place();
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      if (i >= num_items) break;
      request_scales(i, i, i);
#pragma unroll
      for (int r = 0; r < kRows; ++r) request(i, i, r);
    }
    dependency_wait();
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
#pragma unroll
      for (int token = 0; token < kTokens; ++token) {
#pragma unroll
        for (int i = 0; i < 2; ++i) acc[r][token][i] = 0.0F;
      }
    }
    // Items of a turn of the loop: what the ring and the groups need, or code would not fit caches.
    constexpr int kTurn = kAhead > kGroupBlocks ? kAhead : kGroupBlocks;
    for (int base = 0; base < num_items; base += kTurn) {
#pragma unroll
      for (int j = 0; j < kTurn; ++j) {
        if (base + j >= num_items) break;
        const int b = kTurn % kBlocks == 0 ? j % kBlocks : (base + j) % kBlocks;
        if (j % kBlocks == 0 && b == 0) {
          if (base + j > 0) warp_sync();  // the slice of the step before has been read
          stage_tokens((base + j) / kBlocks);
        }
        multiply(base + j, b, j % kAhead, j);
      }
    }
    finish();
  }
};

template <class Config>
__device__ __forceinline__ void gemv(const GemmArgs& args) {
  Gemv<Config>(args).run();
}

}  // namespace w4

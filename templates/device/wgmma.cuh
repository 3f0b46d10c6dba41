// wgmma: y = x * dequant(w)^T for many tokens on sm_90. CTAs stay, one an SM, and walk through the
// tiles; weights are dequantised in registers, x is multiplied where it lies in shared memory.
//
//                  tokens (M)            one tile: kRowTile x kTokenTile outputs over a share of
//            +--------+--------+- - -+   the depth, in steps of kDepthTile through kStages buffers
//   rows (N) |  tile  |        |     |     x  [kDepthTile/64][kTokenTile][64]  tensor copies,
//   kRowTile |        |        |     |        128-byte swizzle
//            +--------+--------+- - -+     w  [kDepthTile/64][4][kRowTile/16][128 B]  layout L0
//            |        |        |     |        in quarters of its blocks, by one copy alike
//            +--------+--------+- - -+
//            kTokenTile
//
//   consumers  kWarpgroups warpgroups of 64 * kFragments rows; each warp has kFragments times 16 of
//              them and all tokens of the tile. While four products (64 deep, one fragment) are
//              under way, the next four operands are dequantised. Scales go straight to registers,
//              a step ahead, and weights a fragment ahead where kAhead says so: their latency is
//              hidden, but products wait at the start for what they do not need yet
//   producer   one thread that requests everything, tile after tile: the first data of the next one
//              come while the last one is computed and stored
//   lead       where a CTA has several tiles, or GeGLU at its end, the second warpgroup begins
//   kLead
//              steps after the first and stays behind, so that one multiplies while the other
//              stores y
//
// Where threads hold more sums than the file divided by the threads leaves room for, the producer's
// warp comes with three that only give their registers away.
//
// The split_k shares of a tile meet
//   kReduce 0: in the workspace (epilogue.cuh), each warp's rows apart;
//   kReduce 1: as a cluster, where the ring was: of each eight tokens one CTA gets the sums of all
//              and adds them in the order of the split. Each CTA has one tile only.
//
// Run-time arguments: N, K, M, split. Requires (host side, templates/wgmma.cc):
//   rows % 16 == 0, k % kDepthTile == 0, k % group == 0, x and y 16-byte aligned, ldx % 8 == 0.
//
// Config: kWarpgroups, kFragments, kTokenTile, kDepthTile, kStages, kAhead, kGroupSize (0: one
// scale
//   per row, on the final sums; else an FP16 or BF16 scale on each weight), kReduce, kGeglu,
//   Element.
#pragma once

#include "dequant.cuh"
#include "epilogue.cuh"
#include "gemm_args.h"
#include "ptx_sm90.cuh"

namespace w4 {

// Whether the consumers take registers that a whole warpgroup of the producer gives away.
template <class Config>
constexpr bool takes_registers() {
  return Config::kWarpgroups == 2 && Config::kFragments * Config::kTokenTile > 112;
}

template <class Config>
constexpr int num_threads() {
  return 128 * Config::kWarpgroups + (takes_registers<Config>() ? 128 : 32);
}

template <class Config>
struct WgmmaTiles {
  using Element = typename Config::Element;
  using Product = Wgmma<Element, Config::kTokenTile>;

  static constexpr int kWarpgroups = Config::kWarpgroups;
  static constexpr int kConsumers = 4 * kWarpgroups;       // warps; the producer comes after
  static constexpr int kFragments = Config::kFragments;    // 16-row fragments of a warp
  static constexpr int kTokens = Config::kTokenTile / 8;   // 8-token fragments
  static constexpr int kBlocks = Config::kDepthTile / 64;  // L0 blocks of a step
  static constexpr int kRowTile = 16 * kFragments * kConsumers;
  static constexpr int kStages = Config::kStages;
  static constexpr bool kAhead = Config::kAhead;
  static constexpr int kLead = kStages / 2;
  static constexpr int kMeet = 15;  // a named barrier; 1 to 8 are of the warps' ends
  static constexpr bool kCluster = Config::kReduce == 1;

  // 256 threads of 232 registers and 128 of 40 are what 384 of 168 began with.
  static constexpr bool kTakes = takes_registers<Config>();
  static constexpr int kConsumerRegisters = 232;
  static constexpr int kProducerRegisters = 40;

  static constexpr bool kPerRow = Config::kGroupSize == 0;
  static constexpr int kGroup = kPerRow ? 64 : Config::kGroupSize;
  static constexpr int kGroupSteps = kGroup / 16;  // 16-deep steps of a group
  // Groups that a step touches: a group may be longer than a step.
  static constexpr int kStepGroups = Config::kDepthTile > kGroup ? Config::kDepthTile / kGroup : 1;

  static constexpr u32 kTokenBlockBytes = Config::kTokenTile * 128;
  static constexpr u32 kTokenBytes = kBlocks * kTokenBlockBytes;
  static constexpr u32 kRowBytes = kBlocks * 512;          // of 16 rows
  static constexpr int kBlockPieces = 4;                   // of 128 bytes, in an L0 block
  static constexpr u32 kPieceBytes = kRowTile / 16 * 128;  // of all rows of the tile
  static constexpr u32 kStageBytes = kTokenBytes + kRowTile / 16 * kRowBytes;
  // Shared memory: ring | barriers: full of each block and empty of each buffer, turn, votes of the
  // warps.
  static constexpr u32 kBarriers = kStages * kStageBytes;

  static_assert(kWarpgroups == 1 || kWarpgroups == 2, "who leads and who follows");
  static_assert(kBlocks * kFragments % 2 == 0, "operands of products under way alternate");
  static_assert(kStages >= 2 && kStages * (kBlocks + 1) + 1 + kConsumers <= 64,
                "64 barriers in 512 bytes");

  // What one warp leaves: a tile of its own to the epilogue, so that units are known to the
  // compiler (counted within a larger tile their places took registers: 540 bytes spilled).
  struct Part {
    using Element = typename Config::Element;
    static constexpr int kRowTile = 16 * kFragments;
    static constexpr int kTokenTile = Config::kTokenTile;
    static constexpr int kGroupSize = Config::kGroupSize;
    static constexpr bool kGeglu = Config::kGeglu;
  };
  using End = Epilogue<Part, 32, 1>;

  // A tile and its share of the depth.
  struct Item {
    int row_begin;
    int token_begin;
    int tile;
    int split;
    int step_begin;
    int num_steps;
  };

  const GemmArgs& args;
  const TensorMap& tokens_map;   // of x
  const TensorMap& weights_map;  // of w as 16-bit words: 16 rows are one, k * 4 words long
  const u32 shared = shared_base();
  const int thread = thread_index();
  const int lane = thread % 32;
  // The same for all lanes, and the compiler must know: addresses live in uniform registers.
  const int warp = static_cast<int>(shuffle(static_cast<u32>(thread / 32), 0));
  const int warpgroup = warp / 4;

  int token_tiles;
  int num_items;  // of all CTAs

  float acc[kFragments][kTokens * 4];

  __device__ __forceinline__ WgmmaTiles(const GemmArgs& a, const TensorMap& tokens,
                                        const TensorMap& weights)
      : args(a), tokens_map(tokens), weights_map(weights) {
    const int row_tiles = (End::weight_rows(args) + kRowTile - 1) / kRowTile;
    token_tiles = (args.m + Config::kTokenTile - 1) / Config::kTokenTile;
    num_items = row_tiles * token_tiles * args.split_k;
  }

  // Shares of a tile follow each other, then the tiles of one stripe of rows: what works at the
  // same time shares weights.
  __device__ __forceinline__ Item item_at(int index) const {
    Item item;
    item.tile = index / args.split_k;
    item.split = index - item.tile * args.split_k;
    const int row_tile = item.tile / token_tiles;
    const int token_tile = item.tile - row_tile * token_tiles;
    item.row_begin = row_tile * kRowTile;
    item.token_begin = token_tile * Config::kTokenTile;
    const int steps = args.k / Config::kDepthTile;
    const int share = steps / args.split_k;  // the first `longer` shares have one step more
    const int longer = steps - share * args.split_k;
    item.step_begin = item.split * share + (item.split < longer ? item.split : longer);
    item.num_steps = share + (item.split < longer ? 1 : 0);
    return item;
  }
  __device__ __forceinline__ u32 stage(int slot) const {
    return shared + static_cast<u32>(slot) * kStageBytes;
  }
  __device__ __forceinline__ u32 barrier_at(int index) const {
    return shared + kBarriers + static_cast<u32>(index) * 8;
  }
  __device__ __forceinline__ u32 full(int slot, int block) const {
    return barrier_at(slot * kBlocks + block);
  }
  __device__ __forceinline__ u32 empty(int slot) const {
    return barrier_at(kStages * kBlocks + slot);
  }
  __device__ __forceinline__ u32 turn() const { return barrier_at(kStages * (kBlocks + 1)); }
  __device__ __forceinline__ u32 vote() const {
    return barrier_at(kStages * (kBlocks + 1) + 1 + warp);
  }

  __device__ __forceinline__ bool clustered() const { return kCluster && args.split_k > 1; }

  // A buffer and which of its uses.
  struct Ring {
    int slot = 0;
    u32 parity = 0;
    __device__ __forceinline__ void advance() {
      if (++slot == kStages) {
        slot = 0;
        parity ^= 1;
      }
    }
  };

  // ---- producer ---------------------------------------------------------------------------------

  __device__ __forceinline__ void init_barriers() const {
    if (lane == 0) {
#pragma unroll
      for (int slot = 0; slot < kStages; ++slot) {
        for (int i = 0; i < kBlocks; ++i) mbarrier_init(full(slot, i), 1);
        mbarrier_init(empty(slot), kConsumers);
      }
      mbarrier_init(turn(), 4);
      mbarrier_init_fence();
    }
    warp_sync();
  }

  // The 64 deep of each block have a barrier of their own: products begin with the first ones.
  __device__ __forceinline__ void request_weights(const Item& item, int step, int slot,
                                                  int i) const {
    // The box of x's map (core/launch_plan.h, token_box) ends with the tokens. What lies behind the
    // last one in shared memory stays as it was: products of a token touch no other.
    const int box = args.m < Config::kTokenTile ? args.m : Config::kTokenTile;
    mbarrier_expect(full(slot, i), static_cast<u32>(box) * 128 + kRowTile / 16 * 512);
    tensor_copy_3d(stage(slot) + kTokenBytes + static_cast<u32>(i * kBlockPieces) * kPieceBytes,
                   &weights_map, 0, item.row_begin / 16,
                   ((item.step_begin + step) * kBlocks + i) * kBlockPieces, full(slot, i));
  }

  __device__ __forceinline__ void request_tokens(const Item& item, int step, int slot,
                                                 int i) const {
    tensor_copy_3d(stage(slot) + static_cast<u32>(i) * kTokenBlockBytes, &tokens_map, 0,
                   item.token_begin, (item.step_begin + step) * kBlocks + i, full(slot, i));
  }

  // `item` is the CTA's first.
  __device__ __forceinline__ void produce(Item item) const {
    if (!elect_one()) return;
    Ring ring;
    bool reused = false;  // the ring's buffers have been filled once
    int early = 0;        // steps whose weights have been requested
    // Beginning early there is time to fill: weights may be read already, x may not.
    if (args.dependent != 0) {
      early = item.num_steps < kStages ? item.num_steps : kStages;
      for (int step = 0; step < early; ++step) {
        for (int i = 0; i < kBlocks; ++i) request_weights(item, step, step, i);
      }
      dependency_wait();
    }
    for (int index = block_index(); index < num_items;) {
      for (int step = 0; step < item.num_steps; ++step) {
        if (reused) mbarrier_wait(empty(ring.slot), ring.parity ^ 1);
#pragma unroll
        for (int i = 0; i < kBlocks; ++i) {
          // x last: it comes from L2.
          if (early == 0) request_weights(item, step, ring.slot, i);
          request_tokens(item, step, ring.slot, i);
        }
        if (early > 0) --early;
        ring.advance();
        if (ring.slot == 0) reused = true;
      }
      index += grid_size();
      item = item_at(index);
    }
  }

  // ---- consumers --------------------------------------------------------------------------------

  // The scales of a lane's rows g and g + 8 for the groups of a step.
  struct Scales {
    u16 rows[kStepGroups][kFragments][2];
  };

  // Where those of an item's rows begin. Fragments that the weight does not have are stored
  // nowhere: they take the scales of the last.
  struct ScaleRows {
    const char* from[kFragments];
  };
  __device__ __forceinline__ ScaleRows scale_rows(const Item& item) const {
    ScaleRows rows;
    const int last = End::weight_rows(args) / 16 - 1;
#pragma unroll
    for (int r = 0; r < kFragments; ++r) {
      const int fragment = item.row_begin / 16 + warp * kFragments + r;
      rows.from[r] =
          static_cast<const char*>(args.scales) +
          static_cast<long long>(fragment < last ? fragment : last) * (args.k / kGroup) * 32 +
          lane / 4 * 2;
    }
    return rows;
  }

  // `step` is one of the whole depth's.
  __device__ __forceinline__ Scales load_scales(const ScaleRows& rows, int step) const {
    Scales scales = {};
    if constexpr (!kPerRow) {
      const int at = step * Config::kDepthTile / kGroup * 32;
#pragma unroll
      for (int g = 0; g < kStepGroups; ++g) {
#pragma unroll
        for (int r = 0; r < kFragments; ++r) {
          const char* const from = rows.from[r] + at + g * 32;
          scales.rows[g][r][0] = load_global_u16(from);
          scales.rows[g][r][1] = load_global_u16(from + 16);
        }
      }
    }
    return scales;
  }

  // This lane's weights, 64 deep: block i of fragment r, as soon as it is in the buffer.
  __device__ __forceinline__ U32x4 load_weights(const Ring& ring, int i, int r) const {
    if (r == 0) mbarrier_wait(full(ring.slot, i), ring.parity);
    // A lane's 16 bytes lie in quarter lane / 8 of the block, swizzled by the row of 128 bytes.
    const int row = lane / 8 * (kRowTile / 16) + warp * kFragments + r;
    const u32 at = static_cast<u32>(row) * 128 + static_cast<u32>((lane ^ row) % 8) * 16;
    return load_shared_16(stage(ring.slot) + kTokenBytes + at +
                          static_cast<u32>(i * kBlockPieces) * kPieceBytes);
  }

  // Four A operands of them. `pairs` holds the scales of rows g and g + 8 from the beginning of
  // their group on.
  __device__ __forceinline__ void dequantise(const U32x4& words, const Scales& scales, int i, int r,
                                             u32 (&pairs)[2], u32 (&a)[4][4]) const {
#pragma unroll
    for (int s = 0; s < 4; ++s) {
      Dequant<Element>::word(words.v[s], a[s]);
      if constexpr (!kPerRow) {
        if ((i * 4 + s) % kGroupSteps == 0) {
          pairs[0] = pair_of(scales.rows[(i * 4 + s) / kGroupSteps][r][0]);
          pairs[1] = pair_of(scales.rows[(i * 4 + s) / kGroupSteps][r][1]);
        }
#pragma unroll
        for (int j = 0; j < 4; ++j) a[s][j] = Element::mul2(a[s][j], pairs[j % 2]);
      }
    }
  }

  // This warp has read the buffer.
  __device__ __forceinline__ void release(int slot) const {
    if (lane == 0) mbarrier_arrive(empty(slot));
  }

  // Products of one step. Those of the last block and fragment stay under way, and with them the
  // operands of one half of `a`. With kAhead, `words` are the weights of the first ones, and then
  // of the next step.
  __device__ __forceinline__ void multiply(bool first, bool last, const Ring& ring,
                                           const Scales& scales, U32x4& words, u32 (&a)[2][4][4]) {
    const int slot = ring.slot;
    const u64 tokens = wgmma_tokens(stage(slot));
    u32 pairs[kFragments][2];
#pragma unroll
    for (int j = 0; j < kBlocks * kFragments; ++j) {
      const int i = j / kFragments;  // block
      const int r = j % kFragments;
      U32x4 now = words;
      if constexpr (!kAhead) {
        now = load_weights(ring, i, r);
      } else if (j + 1 < kBlocks * kFragments) {
        words = load_weights(ring, (j + 1) / kFragments, (j + 1) % kFragments);
      } else if (!last) {
        Ring next = ring;
        next.advance();
        words = load_weights(next, 0, 0);
      }
      u32(&operand)[4][4] = a[j % 2];
      dequantise(now, scales, i, r, pairs[r], operand);
      const u64 b = tokens + i * wgmma_distance(kTokenBlockBytes);
      wgmma_fence();
#pragma unroll
      for (int s = 0; s < 4; ++s) {
        Product::multiply(acc[r], operand[s], b + s * wgmma_distance(32), 1);
      }
      wgmma_commit();
      wgmma_wait<1>();
      if (j == 0 && !first) release(slot == 0 ? kStages - 1 : slot - 1);
    }
  }

  __device__ __forceinline__ End end(const Item& item) const {
    return {args,
            item.tile * kConsumers + warp,
            item.split,
            item.row_begin + warp * Part::kRowTile,
            item.token_begin,
            lane,
            vote(),
            warp};
  }

  __device__ __forceinline__ void store(const Item& item) const {
    float sums[kFragments * kTokens][4];
#pragma unroll
    for (int u = 0; u < kFragments * kTokens; ++u) {
#pragma unroll
      for (int i = 0; i < 4; ++i) sums[u][i] = acc[u / kTokens][u % kTokens * 4 + i];
    }
    end(item).finish_whole(sums);
  }

  // Where this warp's sums of 16 rows and the n-th eight tokens that a CTA finishes wait there, as
  // share `from` left them.
  __device__ __forceinline__ u32 share_at(int n, int from, int r) const {
    const int place = ((n * args.split_k + from) * kFragments + r) * kConsumers + warp;
    return shared + static_cast<u32>((place * 32 + lane) * 16);
  }

  // Eight tokens after eight tokens, the CTAs of a cluster finish one in turn.
  __device__ __forceinline__ void store_clustered(const Item& item) const {
    const int ranks = args.split_k;
    cluster_barrier();  // the rings of all are read
    int to = 0;
    int n = 0;
#pragma unroll
    for (int t = 0; t < kTokens; ++t) {
#pragma unroll
      for (int r = 0; r < kFragments; ++r) {
        const u32 at = share_at(n, item.split, r);
        if (to == item.split) {
          store_shared_f32x4(at, acc[r] + t * 4);
        } else {
          store_cluster_f32x4(cluster_address(at, to), acc[r] + t * 4);
        }
      }
      if (++to == ranks) {
        to = 0;
        ++n;
      }
    }
    cluster_barrier();
    end(item).finish_some(item.split, ranks, [&](int r, int mine, int from) {
      return load_shared_f32x4(share_at(mine, from, r));
    });
  }

  __device__ __forceinline__ void consume(Item item) {
    u32 operands[2][4][4];  // of products under way
    Ring ring;
    int index = block_index();
    ScaleRows rows = scale_rows(item);
    Scales next = load_scales(rows, item.step_begin);
    // GeGLU is much to compute at the end, a cluster ends together.
    const bool apart =
        kWarpgroups == 2 && !clustered() && (Config::kGeglu || num_items > grid_size());
    if (apart && warpgroup == 1) mbarrier_wait(turn(), 0);
    bool leads = apart && warpgroup == 0;
    bool may_write = false;
    for (; index < num_items; index += grid_size()) {
      const Item following = item_at(index + grid_size() < num_items ? index + grid_size() : index);
#pragma unroll
      for (int r = 0; r < kFragments; ++r) {
#pragma unroll
        for (int i = 0; i < kTokens * 4; ++i) acc[r][i] = opaque_zero();
      }
      U32x4 words = {};
      if constexpr (kAhead) words = load_weights(ring, 0, 0);
      for (int step = 0; step < item.num_steps; ++step) {
        const bool last = step + 1 == item.num_steps;
        const Scales scales = next;
        if (last) rows = scale_rows(following);
        next = load_scales(rows, last ? following.step_begin : item.step_begin + step + 1);
        multiply(step == 0, last, ring, scales, words, operands);
        ring.advance();
        if (leads && (step + 1 == kLead || step + 1 == item.num_steps)) {
          leads = false;
          if (lane == 0) mbarrier_arrive(turn());
        }
      }
      wgmma_wait<0>();
      release(ring.slot == 0 ? kStages - 1 : ring.slot - 1);
      if (!may_write) dependency_wait();  // long over for the producer
      may_write = true;
      if (clustered()) {
        store_clustered(item);
      } else {
        store(item);
      }
      item = following;
    }
  }

  __device__ __forceinline__ void run() {
    dependents_launch();
    if (warp == 0) init_barriers();
    if (warp == kConsumers && lane == 0) {
      prefetch_tensor_map(&tokens_map);
      prefetch_tensor_map(&weights_map);
    }
    const Item first = item_at(block_index());
    barrier_named(kMeet, num_threads<Config>());  // barriers are initialised, everywhere
    if (warp < kConsumers) {
      if constexpr (kTakes) take_registers<kConsumerRegisters>();
      consume(first);
      return;
    }
    if constexpr (kTakes) give_registers<kProducerRegisters>();
    if (warp == kConsumers) {
      produce(first);
      warp_sync();
    }
    meet_cluster();
  }

 private:
  // As in store_clustered(), of those that have nothing to store.
  __device__ __forceinline__ void meet_cluster() const {
    if (!clustered()) return;
    cluster_barrier();
    cluster_barrier();
  }
};

template <class Config>
__device__ __forceinline__ void wgmma_tiles(const GemmArgs& args, const TensorMap& tokens,
                                            const TensorMap& weights) {
  WgmmaTiles<Config>(args, tokens, weights).run();
}

}  // namespace w4

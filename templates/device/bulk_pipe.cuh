// bulk_pipe: y = x * dequant(w)^T on sm_90, x and, unless kAhead, the weights brought by the copy
// engine.
//
//                  tokens (M)            one CTA: kRowTile x kTokenTile outputs over a share of
//            +--------+--------+- - -+   the depth, in steps of kDepthTile through kStages buffers
//   rows (N) | CTA    |        |     |     x  [kDepthTile/64][kTokenTile][64]  tensor copies,
//   kRowTile | tile   |        |     |        128-byte swizzle
//            +--------+--------+- - -+     w  [kRowTile/16][kDepthTile/64][512 B]  layout L0,
//            |        |        |     |        one bulk copy for each 16 rows
//            +--------+--------+- - -+   and, once, the scales of the whole share
//            kTokenTile
//
//   weights    kAhead 0: by the copy engine through shared memory, as above. Else by the consumers'
//              own loads straight to registers, kAhead steps at a time and the next ones meanwhile;
//              shared memory then holds x alone, and a CTA's first instructions request its weights
//              and the scales of their groups
//   producer   one thread of a warp of its own. Its loop depends on nothing but the CTA, so that
//              addresses live in uniform registers and a copy takes 30 cycles to issue, not 120
//   consumers  kRowWarps x kDepthWarps warps; each has kWarpRows rows and kDepthTile / kDepthWarps
//              of a step's depth
//     kMath 0  mma.sync: tokens by ldmatrix, once for all rows of the warp
//     kMath 1  wgmma: four row warps of 16 rows are a warpgroup; weights from registers, tokens
//              straight from shared memory
//
// The producer tells the consumers by an mbarrier that counts bytes (full), they tell it by one
// that counts warps (empty). Launched to begin early, the kernel requests its weights before it
// waits for the kernel before.
//
// The warps along the depth are summed through shared memory; the split_k CTAs of a tile
//   kReduce 0: through the workspace (epilogue.cuh), or
//   kReduce 1: as a cluster; each stores its partials into the shared memory of the CTA that
//              finishes the fragment, which adds them in the order of the split.
//
// Run-time arguments: N, K, M, split. Requires (host side, templates/bulk_pipe.cc):
//   rows % 16 == 0, k % kDepthTile == 0, k % group == 0, x and y 16-byte aligned, ldx % 8 == 0.
//
// Config: kRowWarps, kWarpRows, kDepthWarps, kRowTile, kTokenTile, kDepthTile, kStages, kAhead,
//   kMath, kDequant (0: FP16 scale on each weight; 1: FP32 scale on each group's sums; 3: the same,
//   nibbles as denormals, with mma.sync), kReduce, kGroupSize (0: one scale per row), kGeglu,
//   Element.
#pragma once

#include "dequant.cuh"
#include "epilogue.cuh"
#include "gemm_args.h"
#include "ptx_sm90.cuh"

namespace w4 {

template <class Config>
constexpr int num_threads() {
  return 32 * Config::kRowWarps * Config::kDepthWarps + 32;
}

template <class Config>
struct BulkPipe {
  using Element = typename Config::Element;

  static constexpr int kRowWarps = Config::kRowWarps;
  static constexpr int kRows = Config::kWarpRows / 16;  // 16-row fragments of a warp
  static constexpr int kDepthWarps = Config::kDepthWarps;
  static constexpr int kConsumers = kRowWarps * kDepthWarps;  // warps; the producer comes after
  static constexpr int kConsumerThreads = 32 * kConsumers;
  static constexpr int kTokens = Config::kTokenTile / 8;     // 8-token fragments
  static constexpr int kBlocks = Config::kDepthTile / 64;    // L0 blocks of a step
  static constexpr int kWarpBlocks = kBlocks / kDepthWarps;  // of one warp
  static constexpr int kStages = Config::kStages;
  static constexpr bool kDirect = Config::kAhead > 0;         // weights straight to registers
  static constexpr int kTurn = kDirect ? Config::kAhead : 1;  // steps of a turn of the loop
  static constexpr int kTurnBlocks = kTurn * kWarpBlocks;     // of one warp

  static constexpr bool kCluster = Config::kReduce == 1;
  static constexpr bool kPerRow = Config::kGroupSize == 0;
  static constexpr bool kScaleWeights = Config::kDequant == 0;
  static constexpr bool kPromotes = !kScaleWeights && !kPerRow;
  static constexpr bool kOffset = Config::kDequant == 3;  // sums are over u = w + 8
  static constexpr int kGroup = kPerRow ? 64 : Config::kGroupSize;
  static constexpr int kGroupSteps = kGroup / 16;                // 16-deep steps of a group
  static constexpr int kWarpGroups = kWarpBlocks * 64 / kGroup;  // of a step
  static constexpr int kBlockGroups = kGroupSteps < 4 ? 4 / kGroupSteps : 1;  // begun in a block

  static constexpr u32 kTokenBlockBytes = Config::kTokenTile * 128;
  static constexpr u32 kTokenBytes = kBlocks * kTokenBlockBytes;
  static constexpr u32 kRowBytes = kBlocks * 512;  // of 16 rows
  static constexpr u32 kStageBytes = kTokenBytes + (kDirect ? 0 : kRowWarps * kRows * kRowBytes);
  static constexpr int kWarpUnits = kRows * kTokens;     // 16 x 8 fragments of a warp
  static constexpr int kUnits = kRowWarps * kWarpUnits;  // of the tile
  static constexpr u32 kSumBytes = kDepthWarps > 1 ? kDepthWarps* kUnits * 512 : 0;
  static constexpr u32 kRing = kStages * kStageBytes > kSumBytes ? kStages* kStageBytes : kSumBytes;
  // Shared memory: ring | partials from the cluster | barriers | scales of the share.
  static constexpr int kMaxCluster = 8;
  static constexpr u32 kReceived = kRing;
  static constexpr u32 kReceivedBytes = kCluster ? (kUnits + kMaxCluster) * 512 : 0;
  static constexpr u32 kBarriers = kReceived + kReceivedBytes;
  static constexpr u32 kBarrierBytes = 256;
  static constexpr u32 kScales = kBarriers + kBarrierBytes;

  static_assert(kStages >= 2 && kStages <= 12, "two barriers of 8 bytes a stage in kBarrierBytes");
  static_assert(kBlocks % kDepthWarps == 0, "whole L0 blocks a warp");
  static_assert(kStageBytes % 1024 == 0, "the swizzle counts from multiples of 1024");
  static_assert(kPerRow || kWarpBlocks * 64 % kGroup == 0, "whole groups a warp");
  static_assert(Config::kMath == 0 || kTurnBlocks == 1 || kTurnBlocks % 2 == 0,
                "operands of products under way alternate");
  static_assert(Config::kMath == 0 || (kRowWarps % 4 == 0 && kRows == 1), "whole warpgroups");
  static_assert(!(kPerRow && kScaleWeights), "a scale per row is cheapest on the final sums");
  static_assert(!kOffset || (Config::kMath == 0 && !kPerRow), "sums settled group by group");
  static_assert(Config::kRowTile == Config::kWarpRows * kRowWarps, "the tile is its warps' rows");

  const GemmArgs& args;
  const TensorMap& tokens_map;
  const u32 shared = shared_base();
  const int thread = thread_index();
  const int lane = thread % 32;
  // The same for all lanes, and the compiler must know: addresses live in uniform registers.
  const int warp = static_cast<int>(shuffle(static_cast<u32>(thread / 32), 0));
  const int row_warp = warp % kRowWarps;
  const int depth_warp = warp / kRowWarps;

  int tile;
  int split;
  int row_begin;
  int token_begin;
  int step_begin;
  int num_steps;
  int num_groups;  // of the share

  float acc[kRows][kTokens * 4];

  __device__ __forceinline__ BulkPipe(const GemmArgs& a, const TensorMap& map)
      : args(a), tokens_map(map) {}

  __device__ __forceinline__ void place() {
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
    tile = linear;
    int token_tile = 0;
    if (args.m > Config::kTokenTile) {
      const int token_tiles = (args.m + Config::kTokenTile - 1) / Config::kTokenTile;
      linear = tile / token_tiles;
      token_tile = tile - linear * token_tiles;
    }
    row_begin = linear * Config::kRowTile;
    token_begin = token_tile * Config::kTokenTile;
    num_groups = num_steps * Config::kDepthTile / kGroup;
  }

  __device__ __forceinline__ u32 stage(int slot) const {
    return shared + static_cast<u32>(slot) * kStageBytes;
  }
  __device__ __forceinline__ u32 barrier_at(int index) const {
    return shared + kBarriers + static_cast<u32>(index) * 8;
  }
  __device__ __forceinline__ u32 full(int slot) const { return barrier_at(slot); }
  __device__ __forceinline__ u32 empty(int slot) const { return barrier_at(kStages + slot); }
  __device__ __forceinline__ u32 scales_full() const { return barrier_at(2 * kStages); }
  __device__ __forceinline__ u32 received() const { return barrier_at(2 * kStages + 1); }
  __device__ __forceinline__ u32 vote() const { return barrier_at(2 * kStages + 2); }

  // ---- producer ---------------------------------------------------------------------------------

  // 16-row fragments of the tile that exist: the last tile may reach beyond the weight.
  __device__ __forceinline__ int present_rows() const {
    const int rows = (End::weight_rows(args) - row_begin) / 16;
    return rows < Config::kRowTile / 16 ? rows : Config::kRowTile / 16;
  }

  // One lane for all: a lane for each made launches up to 0.3 us longer.
  __device__ __forceinline__ void init_barriers() const {
    if (lane == 0) {
#pragma unroll
      for (int slot = 0; slot < kStages; ++slot) {
        mbarrier_init(full(slot), 1);
        mbarrier_init(empty(slot), kConsumers);
      }
      mbarrier_init(scales_full(), kRowWarps);
      mbarrier_init(received(), 1);
      mbarrier_init_fence();
    }
    warp_sync();
  }

  __device__ __forceinline__ void expect_stage(int slot) const {
    u32 bytes = whole_tokens() ? kTokenBytes : kBlocks * static_cast<u32>(args.m) * 128;
    if constexpr (!kDirect) bytes += static_cast<u32>(present_rows()) * kRowBytes;
    mbarrier_expect(full(slot), bytes);
  }

  __device__ __forceinline__ void request_weights(int step, int slot) const {
    if constexpr (kDirect) return;
    const int rows = present_rows();
    const long long row_stride = static_cast<long long>(args.k / 64) * 512;
    const char* const from = static_cast<const char*>(args.w) + row_begin / 16 * row_stride +
                             static_cast<long long>((step_begin + step) * kBlocks) * 512;
#pragma unroll
    for (int r = 0; r < Config::kRowTile / 16; ++r) {
      if (r == rows) break;
      bulk_copy(stage(slot) + kTokenBytes + static_cast<u32>(r) * kRowBytes, from + r * row_stride,
                kRowBytes, full(slot));
    }
  }

  // The box of the tensor map (core/launch_plan.h, token_box): a whole step, or 64 deep.
  __device__ __forceinline__ bool whole_tokens() const { return args.m >= Config::kTokenTile; }

  __device__ __forceinline__ void request_tokens(int step, int slot) const {
    const int block = (step_begin + step) * kBlocks;
    if (whole_tokens()) {
      tensor_copy_3d(stage(slot), &tokens_map, 0, token_begin, block, full(slot));
      return;
    }
    // What lies behind the last token in shared memory stays as it was: products of a token touch
    // no other.
    for (int i = 0; i < kBlocks; ++i) {
      tensor_copy_3d(stage(slot) + static_cast<u32>(i) * kTokenBlockBytes, &tokens_map, 0,
                     token_begin, block + i, full(slot));
    }
  }

  // Weights first: they come from further away, and copies are issued one after another.
  __device__ __forceinline__ void request_stage(int step, int slot) const {
    expect_stage(slot);
    request_weights(step, slot);
    request_tokens(step, slot);
  }

  __device__ __forceinline__ void produce() const {
    if (!elect_one()) return;
    const int first = num_steps < kStages ? num_steps : kStages;
    // Beginning early there is time to fill: weights may be read already, x may not.
    if (args.dependent != 0) {
      for (int step = 0; step < first; ++step) {
        expect_stage(step);
        request_weights(step, step);
      }
      dependency_wait();
      for (int step = 0; step < first; ++step) request_tokens(step, step);
    } else {
      for (int step = 0; step < first; ++step) request_stage(step, step);
    }
    int slot = 0;
    u32 parity = 0;
    for (int step = kStages; step < num_steps; ++step) {
      mbarrier_wait(empty(slot), parity);
      request_stage(step, slot);
      if (++slot == kStages) {
        slot = 0;
        parity ^= 1;
      }
    }
  }

  // ---- consumers --------------------------------------------------------------------------------

  // What a warp holds of a turn's weights and scales where they go straight to registers.
  static constexpr int kHeldGroups = kPerRow ? 0 : kTurnBlocks * 64 / kGroup;
  struct Held {
    U32x4 words[kRows][kTurnBlocks];
    u32 scales[kHeldGroups > 0 ? kHeldGroups : 1];  // as fragment_scales() takes them
  };

  // Requests those of step `step` of the share, in place `turn` of the turn.
  __device__ __forceinline__ void request_held(int step, int turn, Held& held) const {
    if (step >= num_steps) return;
    const int fragment = row_begin / 16 + row_warp * kRows;  // the warp's first, of the weight
    const int fragments = End::weight_rows(args) / 16;
    const int block = (step_begin + step) * kBlocks + depth_warp * kWarpBlocks;
    const int blocks = args.k / 64;
    const char* const from = static_cast<const char*>(args.w) +
                             (static_cast<long long>(fragment) * blocks + block) * 512 + lane * 16;
#pragma unroll
    for (int i = 0; i < kWarpBlocks; ++i) {
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        if (fragment + r >= fragments) break;
        held.words[r][turn * kWarpBlocks + i] =
            load_global_16(from + static_cast<long long>(r) * blocks * 512 + i * 512);
      }
    }
    if constexpr (!kPerRow) {
      if (lane / 8 >= kRows || fragment + lane / 8 >= fragments) return;
      const long long group =
          static_cast<long long>(fragment + lane / 8) * (args.k / kGroup) + block * 64 / kGroup;
      const char* const scales = static_cast<const char*>(args.scales) + group * 32 + lane % 8 * 4;
#pragma unroll
      for (int g = 0; g < kWarpGroups; ++g) {
        held.scales[turn * kWarpGroups + g] = load_global_u32(scales + g * 32);
      }
    }
  }

  // What this lane reads of one step: addresses in shared memory, from which the rest are
  // constants.
  struct Step {
    int index;  // of the share
    int turn;   // of the turn of the loop
    int slot;
    u32 tokens;   // first block of the warp
    u32 weights;  // this lane's 16 bytes of the first block of the first fragment
    u32 scales;   // of row g for the first group of the first fragment
  };

  __device__ __forceinline__ Step first_step() const {
    const u32 weights =
        static_cast<u32>(row_warp * kRows * kBlocks + depth_warp * kWarpBlocks) * 512;
    const u32 scales =
        static_cast<u32>(row_warp * kRows * num_groups + depth_warp * kWarpGroups) * 32;
    return {0,
            0,
            0,
            shared + static_cast<u32>(depth_warp) * kWarpBlocks * kTokenBlockBytes,
            shared + kTokenBytes + weights + static_cast<u32>(lane) * 16,
            shared + kScales + scales + static_cast<u32>(lane / 4) * 2};
  }

  __device__ __forceinline__ void advance(Step& step) const {
    ++step.index;
    ++step.slot;
    step.tokens += kStageBytes;
    step.weights += kStageBytes;
    step.scales += kDepthWarps * kWarpGroups * 32;
    if (step.slot == kStages) {
      step.slot = 0;
      step.tokens -= kStages * kStageBytes;
      step.weights -= kStages * kStageBytes;
    }
  }

  // This warp has read the buffer of step `index`.
  __device__ __forceinline__ void release(int index, int slot) const {
    if (index + kStages < num_steps && lane == 0) mbarrier_arrive(empty(slot));
  }

  // Each row warp brings the scales of its rows, so that the producer need not.
  __device__ __forceinline__ void request_scales() const {
    if (!elect_one()) return;
    const u32 bytes = static_cast<u32>(num_groups) * 32;  // of 16 rows
    const int left = present_rows() - row_warp * kRows;
    const int rows = left < 0 ? 0 : (left < kRows ? left : kRows);
    mbarrier_expect(scales_full(), static_cast<u32>(rows) * bytes);
    for (int r = 0; r < rows; ++r) {
      const int fragment = row_warp * kRows + r;
      const long long group =
          static_cast<long long>(row_begin / 16 + fragment) * (args.k / kGroup) +
          static_cast<long long>(step_begin) * (Config::kDepthTile / kGroup);
      bulk_copy(shared + kScales + static_cast<u32>(fragment) * bytes,
                static_cast<const char*>(args.scales) + group * 32, bytes, scales_full());
    }
  }

  // Scales of rows g and g + 8 of fragment r for group `group` of the warp's.
  __device__ __forceinline__ void load_scales(const Step& step, const Held& held, int r, int group,
                                              u16& low, u16& high) const {
    if constexpr (kDirect) {
      fragment_scales(held.scales[step.turn * kWarpGroups + group], r, lane, low, high);
      return;
    }
    const u32 at = step.scales + static_cast<u32>(r * num_groups * 32) + group * 32;
    low = load_shared_u16(at);
    high = load_shared_u16(at + 16);
  }

  // acc += scale * sums; x: the sums of x over the group, for what is over u = w + 8.
  __device__ __forceinline__ void promote(const Step& step, const Held& held, int r, int group,
                                          const float* sums, const float (*x)[4] = nullptr) {
    u16 low;
    u16 high;
    load_scales(step, held, r, group, low, high);
    const float scale[2] = {Element::to_f32(low), Element::to_f32(high)};
#pragma unroll
    for (int t = 0; t < kTokens; ++t) {
      float settled[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) settled[i] = sums[t * 4 + i];
      if constexpr (kOffset) ByteDequant::settle(sums + t * 4, x[t], settled);
#pragma unroll
      for (int i = 0; i < 4; ++i) acc[r][t * 4 + i] += scale[i / 2] * settled[i];
    }
  }

  // The A operands of the warp's block i of fragment r, dequantised: of 16-deep step s a[s].
  __device__ __forceinline__ void load_weights(const Step& step, const Held& held, int r, int i,
                                               u32 (&a)[4][4]) const {
    U32x4 words;
    if constexpr (kDirect) {
      words = held.words[r][step.turn * kWarpBlocks + i];
    } else {
      words = load_shared_16(step.weights + static_cast<u32>(r * kBlocks + i) * 512);
    }
    u16 low = 0;
    u16 high = 0;
#pragma unroll
    for (int s = 0; s < 4; ++s) {
      if constexpr (kOffset) {
        ByteDequant::word(words.v[s], a[s]);
      } else {
        Dequant<Element>::word(words.v[s], a[s]);
      }
      if constexpr (kScaleWeights) {
        if (s % kGroupSteps == 0) load_scales(step, held, r, (i * 4 + s) / kGroupSteps, low, high);
#pragma unroll
        for (int j = 0; j < 4; ++j) a[s][j] = Element::mul2(a[s][j], pair_of(j % 2 ? high : low));
      }
    }
  }

  // B fragments of 16-deep step `s` of a block of tokens.
  __device__ __forceinline__ void load_tokens(u32 block, int s, u32 (&b)[kTokens][2]) const {
    const int row = lane % 8;
    const int second = lane / 16;  // the second of two token fragments
    const u32 base =
        block + static_cast<u32>(row) * 128 + static_cast<u32>((2 * s + (lane / 8) % 2) ^ row) * 16;
#pragma unroll
    for (int t = 0; t + 1 < kTokens; t += 2) {
      ldmatrix_x4(base + static_cast<u32>(t + second) * 1024, b[t][0], b[t][1], b[t + 1][0],
                  b[t + 1][1]);
    }
    if constexpr (kTokens % 2 == 1) {
      ldmatrix_x2(base + (kTokens - 1) * 1024, b[kTokens - 1][0], b[kTokens - 1][1]);
    }
  }

  // Adds x over the warp's block i, as products with a row of ones: each thread gets the sums of
  // the tokens whose products it has, for all rows of the warp.
  __device__ __forceinline__ void add_tokens(int i, const u32 (&b)[4][kTokens][2],
                                             float (&x)[kBlockGroups][kTokens][4]) const {
    const float zero[4] = {0.0F, 0.0F, 0.0F, 0.0F};
    const u32 ones[4] = {0x3c003c00, 0x3c003c00, 0x3c003c00, 0x3c003c00};
#pragma unroll
    for (int s = 0; s < 4; ++s) {
      const bool begins = (i * 4 + s) % kGroupSteps == 0;
#pragma unroll
      for (int t = 0; t < kTokens; ++t) {
        float* const to = x[s / kGroupSteps % kBlockGroups][t];
        Element::mma(to, ones, b[s][t], begins ? zero : to);
      }
    }
  }

  // One step with mma.sync.
  __device__ __forceinline__ void multiply_mma(const Step& step, const Held& held,
                                               float (&sums)[kRows][kTokens * 4]) {
    const float zero[4] = {0.0F, 0.0F, 0.0F, 0.0F};
    float x[kBlockGroups][kTokens][4];
#pragma unroll
    for (int i = 0; i < kWarpBlocks; ++i) {
      u32 b[4][kTokens][2];
#pragma unroll
      for (int s = 0; s < 4; ++s) {
        load_tokens(step.tokens + static_cast<u32>(i) * kTokenBlockBytes, s, b[s]);
      }
      if constexpr (kOffset) add_tokens(i, b, x);
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        u32 a[4][4];
        load_weights(step, held, r, i, a);
#pragma unroll
        for (int s = 0; s < 4; ++s) {
          const int in_group = (i * 4 + s) % kGroupSteps;
#pragma unroll
          for (int t = 0; t < kTokens; ++t) {
            float* const to = (kPromotes ? sums[r] : acc[r]) + t * 4;
            Element::mma(to, a[s], b[s][t], kPromotes && in_group == 0 ? zero : to);
          }
          if (kPromotes && in_group == kGroupSteps - 1) {
            promote(step, held, r, (i * 4 + s) / kGroupSteps, sums[r],
                    x[s / kGroupSteps % kBlockGroups]);
          }
        }
      }
    }
    warp_sync();
    release(step.index, step.slot);
  }

  // One step with wgmma. Where groups are promoted their sums must have come first; elsewhere one
  // block stays under way while the next is dequantised into the other half of `a`, even beyond the
  // step.
  __device__ __forceinline__ void multiply_wgmma(const Step& step, const Held& held,
                                                 u32 (&a)[2][4][4], float (&sums)[kTokens * 4]) {
    using Product = Wgmma<Element, Config::kTokenTile>;
    const u64 tokens = wgmma_tokens(step.tokens);
#pragma unroll
    for (int i = 0; i < kWarpBlocks; ++i) {
      u32(&operand)[4][4] = a[(step.turn * kWarpBlocks + i) % 2];
      load_weights(step, held, 0, i, operand);
      const u64 b = tokens + i * wgmma_distance(kTokenBlockBytes);
      wgmma_fence();
#pragma unroll
      for (int s = 0; s < 4; ++s) {
        const u64 b_of_step = b + s * wgmma_distance(32);  // 16 deep
        if constexpr (kPromotes) {
          const int in_group = (i * 4 + s) % kGroupSteps;
          Product::multiply(sums, operand[s], b_of_step, in_group == 0 ? 0 : 1);
          if (in_group == kGroupSteps - 1) {
            wgmma_commit();
            wgmma_wait<0>();
            if (i == kWarpBlocks - 1 && s == 3) release(step.index, step.slot);
            promote(step, held, 0, (i * 4 + s) / kGroupSteps, sums);
            if (s < 3) wgmma_fence();
          }
        } else {
          Product::multiply(acc[0], operand[s], b_of_step, 1);
        }
      }
      if constexpr (kPromotes) {
        if ((i * 4 + 4) % kGroupSteps != 0) {
          wgmma_commit();
          wgmma_wait<1>();
        }
      } else {
        wgmma_commit();
        // Registers that a product under way reads must not be written: with one block a turn, the
        // next would write those of this one.
        wgmma_wait<kTurnBlocks == 1 ? 0 : 1>();
        if (i == 0 && step.index > 0) {
          release(step.index - 1, step.slot == 0 ? kStages - 1 : step.slot - 1);
        }
      }
    }
  }

  __device__ __forceinline__ void consume(Held& held) {
    if constexpr (!kPerRow && !kDirect) {
      if (depth_warp == 0) request_scales();
      mbarrier_wait(scales_full(), 0);
    }
    float sums[kRows][kTokens * 4];
    u32 operands[2][4][4];  // of products under way
    u32 parity = 0;
    Step step = first_step();
    while (step.index != num_steps) {
#pragma unroll
      for (int turn = 0; turn < kTurn; ++turn) {
        if (turn > 0 && step.index == num_steps) break;
        step.turn = turn;
        mbarrier_wait(full(step.slot), parity);
        if constexpr (Config::kMath == 0) {
          multiply_mma(step, held, sums);
        } else {
          multiply_wgmma(step, held, operands, sums[0]);
        }
        // In the place of what has been read.
        if constexpr (kDirect) request_held(step.index + kTurn, turn, held);
        if (step.slot == kStages - 1) parity ^= 1;
        advance(step);
      }
    }
    if constexpr (Config::kMath == 1) wgmma_wait<0>();
  }

  // ---- sums -------------------------------------------------------------------------------------

  using End = Epilogue<Config, kConsumerThreads, 1>;
  static constexpr int kOwned = (kWarpUnits + kDepthWarps - 1) / kDepthWarps;  // units of a warp

  // Of unit `unit`, counted in the warp or in the tile.
  __device__ __forceinline__ bool any_token(int unit) const {
    return token_begin + unit % kTokens * 8 < args.m;
  }

  __device__ __forceinline__ u32 sum_address(int depth, int u) const {
    return shared +
           static_cast<u32>(((depth * kUnits + row_warp * kWarpUnits + u) * 32 + lane) * 16);
  }

  // Of each row warp's units, depth warp d adds and keeps u = d, d + kDepthWarps, ...
  __device__ __forceinline__ void reduce_depth_warps(float (&owned)[kOwned][4],
                                                     int (&units)[kOwned]) {
    if constexpr (kDepthWarps > 1) {
      barrier_named(1, kConsumerThreads);  // the ring has been read
#pragma unroll
      for (int u = 0; u < kWarpUnits; ++u) {
        if (!any_token(u)) continue;
        store_shared_f32x4(sum_address(depth_warp, u), acc[u / kTokens] + u % kTokens * 4);
      }
      barrier_named(1, kConsumerThreads);
    }
#pragma unroll
    for (int j = 0; j < kOwned; ++j) {
      const int u = depth_warp + j * kDepthWarps;
      units[j] = u < kWarpUnits ? row_warp * kWarpUnits + u : End::kNone;
      if constexpr (kDepthWarps == 1) {
#pragma unroll
        for (int i = 0; i < 4; ++i) owned[j][i] = acc[j / kTokens][j % kTokens * 4 + i];
      } else {
#pragma unroll
        for (int i = 0; i < 4; ++i) owned[j][i] = 0.0F;
        if (u >= kWarpUnits || !any_token(u)) continue;
#pragma unroll
        for (int d = 0; d < kDepthWarps; ++d) {
          const F32x4 v = load_shared_f32x4(sum_address(d, u));
#pragma unroll
          for (int i = 0; i < 4; ++i) owned[j][i] += v.v[i];
        }
      }
    }
  }

  // Which CTA of the cluster finishes a unit, and where the partial of CTA `from` waits there.
  __device__ __forceinline__ int finisher(int unit) const { return unit % args.split_k; }
  __device__ __forceinline__ u32 received_at(int unit, int from) const {
    const int place = unit / args.split_k * args.split_k + from;
    return shared + kReceived + static_cast<u32>((place * 32 + lane) * 16);
  }

  __device__ __forceinline__ void expect_partials() const {
    int count = 0;
    for (int unit = split; unit < kUnits; unit += args.split_k) {
      if (any_token(unit)) ++count;
    }
    mbarrier_expect(received(), static_cast<u32>(count * (args.split_k - 1) * 512));
  }

  // Leaves the sums of the units that this CTA finishes; the others' units become none.
  __device__ __forceinline__ void reduce_cluster(float (&owned)[kOwned][4],
                                                 int (&units)[kOwned]) const {
    cluster_wait();  // the others' barriers are initialised
#pragma unroll
    for (int j = 0; j < kOwned; ++j) {
      if (units[j] == End::kNone || !any_token(units[j])) continue;
      const int to = finisher(units[j]);
      if (to == split) continue;
      store_cluster_f32x4(cluster_address(received_at(units[j], split), to), owned[j],
                          cluster_address(received(), to));
      units[j] = End::kNone;
    }
    mbarrier_wait_cluster(received(), 0);
#pragma unroll
    for (int j = 0; j < kOwned; ++j) {
      if (units[j] == End::kNone || !any_token(units[j])) continue;
      float sum[4] = {0.0F, 0.0F, 0.0F, 0.0F};
      for (int part = 0; part < args.split_k; ++part) {
        F32x4 v;
        if (part != split) v = load_shared_f32x4(received_at(units[j], part));
#pragma unroll
        for (int i = 0; i < 4; ++i) sum[i] += part == split ? owned[j][i] : v.v[i];
      }
#pragma unroll
      for (int i = 0; i < 4; ++i) owned[j][i] = sum[i];
    }
  }

  // ---- the whole --------------------------------------------------------------------------------

  __device__ __forceinline__ bool clustered() const { return kCluster && args.split_k > 1; }

  __device__ __forceinline__ void run() {
    dependents_launch();
    place();
    if (warp == kConsumers) {
      if (lane == 0) prefetch_tensor_map(&tokens_map);
      init_barriers();
      if (clustered()) cluster_arrive();
      barrier_arrive<2, kConsumerThreads + 32>();
      produce();
      warp_sync();
      if (clustered()) cluster_wait();
      return;
    }
    Held held = {};
    if constexpr (kDirect) {
#pragma unroll
      for (int turn = 0; turn < kTurn; ++turn) request_held(turn, turn, held);
    }
    if (clustered()) cluster_arrive();
    barrier_named(2, kConsumerThreads + 32);  // barriers are initialised
    if (clustered() && thread == 0) expect_partials();
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
#pragma unroll
      for (int i = 0; i < kTokens * 4; ++i) acc[r][i] = opaque_zero();
    }
    consume(held);
    dependency_wait();  // long over for the producer; now these threads may write, too
    float owned[kOwned][4];
    int units[kOwned];
    reduce_depth_warps(owned, units);
    const End end{args, tile, split, row_begin, token_begin, thread, vote()};
    if constexpr (kCluster) {
      if (clustered()) reduce_cluster(owned, units);
#pragma unroll
      for (int j = 0; j < kOwned; ++j) end.store(units[j], owned[j]);
    } else {
      end.finish(owned, units);
    }
  }
};

template <class Config>
__device__ __forceinline__ void bulk_pipe(const GemmArgs& args, const TensorMap& tokens) {
  BulkPipe<Config>(args, tokens).run();
}

}  // namespace w4

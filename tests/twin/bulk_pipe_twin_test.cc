// bulk_pipe on the host twin: every branch of the template but clusters, which the twin has not
// (reduce=1), within its error bounds and without races, and nothing in it that could be left out.
#include "templates/bulk_pipe.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "templates/device/bulk_pipe.cuh"
#include "tests/twin/family_checks.h"

namespace w4tune {
namespace {

using w4::twin::Sync;

struct Shape {
  int row_warps, warp_rows, depth_warps, token_tile, depth_tile, stages, math, dequant;
  int ahead = 0;
};

template <class ElementType, Shape kShape, int kGroup, Op kOp>
struct Config {
  using Element = ElementType;
  static constexpr int kRowWarps = kShape.row_warps;
  static constexpr int kWarpRows = kShape.warp_rows;
  static constexpr int kDepthWarps = kShape.depth_warps;
  static constexpr int kRowTile = kShape.row_warps * kShape.warp_rows;
  static constexpr int kTokenTile = kShape.token_tile;
  static constexpr int kDepthTile = kShape.depth_tile;
  static constexpr int kStages = kShape.stages;
  static constexpr int kAhead = kShape.ahead;
  static constexpr int kMath = kShape.math;
  static constexpr int kDequant = kShape.dequant;
  static constexpr int kReduce = 0;
  static constexpr int kGroupSize = kGroup;
  static constexpr bool kGeglu = kOp == Op::kGeglu;
};

template <class Element, Shape kShape, int kGroup, Op kOp = Op::kGemm>
TwinKernel kernel() {
  static const BulkPipe family;
  return {
      &family,
      parse_kernel_config(
          fmt::format("bulk_pipe row_warps={} warp_rows={} depth_warps={} token_tile={} "
                      "depth_tile={} stages={} ahead={} math={} dequant={} reduce=0",
                      kShape.row_warps, kShape.warp_rows, kShape.depth_warps, kShape.token_tile,
                      kShape.depth_tile, kShape.stages, kShape.ahead, kShape.math, kShape.dequant)),
      kOp,
      std::is_same_v<Element, w4::F16> ? Dtype::kF16 : Dtype::kBF16,
      kGroup,
      [](const w4::GemmArgs& args, const w4::TensorMap& tokens, const w4::TensorMap& /*weights*/) {
        w4::bulk_pipe<Config<Element, kShape, kGroup, kOp>>(args, tokens);
      }};
}

// row_warps, warp_rows, depth_warps, token_tile, depth_tile, stages, math, dequant, ahead
constexpr Shape kOneWarp = {1, 16, 1, 8, 128, 2, 0, 1};
constexpr Shape kDeepWarps = {2, 16, 4, 16, 256, 3, 0, 1};
constexpr Shape kTwoFragments = {2, 32, 2, 24, 128, 6, 0, 0};  // stages that are never filled
constexpr Shape kFourFragments = {1, 64, 2, 16, 256, 2, 0, 1};
constexpr Shape kDenormals = {1, 64, 2, 16, 256, 2, 0, 3};
constexpr Shape kWideTile = {2, 16, 1, 64, 64, 4, 0, 1};
constexpr Shape kOneBlock = {4, 16, 1, 8, 64, 2, 1, 1};      // of the weight layout in a step
constexpr Shape kWholeGroup = {4, 16, 1, 16, 128, 3, 1, 1};  // a group of 128 is two blocks
constexpr Shape kScaledWeights = {4, 16, 2, 24, 256, 2, 1, 0};
constexpr Shape kOneScaledBlock = {4, 16, 2, 32, 128, 6, 1, 0};
constexpr Shape kFourBlocks = {4, 16, 1, 40, 256, 2, 1, 1};
constexpr Shape kTwoWarpgroups = {8, 16, 1, 48, 64, 4, 1, 1};
constexpr Shape kDeepWarpgroups = {4, 16, 4, 56, 256, 2, 1, 1};
constexpr Shape kWideWgmma = {4, 16, 1, 64, 128, 3, 1, 0};

// Weights straight to registers.
constexpr Shape kHeldOnce = {1, 16, 4, 16, 512, 2, 0, 1, 2};
constexpr Shape kHeldRows = {1, 64, 2, 8, 128, 3, 0, 1, 2};
constexpr Shape kHeldDenormals = {2, 32, 1, 16, 128, 2, 0, 3, 4};
constexpr Shape kHeldScaled = {2, 32, 2, 24, 256, 2, 0, 0, 1};
constexpr Shape kHeldBlock = {4, 16, 1, 32, 64, 4, 1, 1, 4};
constexpr Shape kHeldWgmma = {4, 16, 2, 16, 256, 4, 1, 1, 4};
constexpr Shape kHeldScaledWgmma = {8, 16, 1, 64, 128, 3, 1, 0, 2};

std::vector<TwinKernel> held_kernels() {
  using w4::BF16;
  using w4::F16;
  return {
      kernel<F16, kHeldOnce, 128>(),        kernel<BF16, kHeldOnce, 0, Op::kGeglu>(),
      kernel<F16, kHeldRows, 64>(),         kernel<BF16, kHeldRows, 32, Op::kGeglu>(),
      kernel<F16, kHeldDenormals, 128>(),   kernel<BF16, kHeldScaled, 128>(),
      kernel<F16, kHeldScaled, 32>(),       kernel<F16, kHeldBlock, 64>(),
      kernel<BF16, kHeldBlock, 0>(),        kernel<F16, kHeldWgmma, 128>(),
      kernel<BF16, kHeldWgmma, 32>(),       kernel<F16, kHeldScaledWgmma, 128, Op::kGeglu>(),
      kernel<BF16, kHeldScaledWgmma, 64>(),
  };
}

std::vector<TwinKernel> mma_kernels() {
  using w4::BF16;
  using w4::F16;
  return {
      kernel<F16, kOneWarp, 128>(),       kernel<BF16, kOneWarp, 32, Op::kGeglu>(),
      kernel<F16, kDeepWarps, 64>(),      kernel<BF16, kDeepWarps, 0, Op::kGeglu>(),
      kernel<F16, kTwoFragments, 64>(),   kernel<BF16, kTwoFragments, 32, Op::kGeglu>(),
      kernel<F16, kFourFragments, 128>(), kernel<F16, kFourFragments, 32, Op::kGeglu>(),
      kernel<F16, kDenormals, 128>(),     kernel<F16, kDenormals, 32, Op::kGeglu>(),
      kernel<F16, kWideTile, 0>(),        kernel<BF16, kWideTile, 64>(),
  };
}

std::vector<TwinKernel> wgmma_kernels() {
  using w4::BF16;
  using w4::F16;
  return {
      kernel<F16, kOneBlock, 64>(),
      kernel<BF16, kOneBlock, 0, Op::kGeglu>(),
      kernel<F16, kWholeGroup, 128>(),
      kernel<BF16, kWholeGroup, 32, Op::kGeglu>(),
      kernel<F16, kScaledWeights, 128>(),
      kernel<BF16, kScaledWeights, 32>(),
      kernel<F16, kOneScaledBlock, 64, Op::kGeglu>(),
      kernel<F16, kFourBlocks, 0>(),
      kernel<BF16, kFourBlocks, 128, Op::kGeglu>(),
      kernel<F16, kTwoWarpgroups, 64>(),
      kernel<F16, kDeepWarpgroups, 64, Op::kGeglu>(),
      kernel<BF16, kWideWgmma, 128>(),
  };
}

TEST(BulkPipeTwin, WgmmaIsWithinItsBoundsAtRaggedM) {
  expect_within_bounds_at_ragged_m(wgmma_kernels());
}

TEST(BulkPipeTwin, MmaIsWithinItsBoundsAtRaggedM) {
  expect_within_bounds_at_ragged_m(mma_kernels());
}

TEST(BulkPipeTwin, WeightsInRegistersAreWithinTheBoundsAtRaggedM) {
  expect_within_bounds_at_ragged_m(held_kernels());
}

// Two turns of the loop and a step: what is in registers is replaced, and the last turn is cut
// short.
TEST(BulkPipeTwin, WeightsInRegistersAreReplacedTurnByTurn) {
  for (const TwinKernel& kernel : held_kernels()) {
    const Footprint footprint = kernel.footprint();
    const int steps = 2 * kernel.config.at("ahead") + 1;
    const GemmOnTwin gemm(kernel, footprint.row_tile + 16, steps * footprint.depth_tile,
                          footprint.token_tile);
    EXPECT_EQ(gemm.run(footprint.token_tile, {}).wrong, "") << kernel.name();
  }
}

std::vector<TwinKernel> split_kernels() {
  using w4::BF16;
  using w4::F16;
  return {kernel<F16, kDeepWarps, 64>(), kernel<F16, kHeldWgmma, 64>(),
          kernel<BF16, kWideWgmma, 128, Op::kGeglu>()};
}

TEST(BulkPipeTwin, ASplitHasTheSameBitsWhoeverArrivesLast) {
  expect_same_bits_whoever_arrives_last(split_kernels());
}

// Five steps, so that every buffer is filled anew. Waits for products are spare where nothing that
// is under way is read or written before the next one: before the first products that are read, and
// at the end, where the last that were under way have been waited for.
TEST(BulkPipeTwin, NoBarrierAndNoWaitCanBeLeftOut) {
  using w4::F16;
  const std::vector<std::pair<TwinKernel, std::vector<int>>> kernels = {
      {kernel<F16, kDeepWarps, 64>(), {}},
      {kernel<F16, kWholeGroup, 128>(), {0, 2, 4, 6, 8, 10}},  // halves of groups, and the end
      {kernel<F16, kScaledWeights, 128>(), {0, 9}},            // the first, and one before the end
      {kernel<F16, kHeldBlock, 64>(), {5}},                    // the end
      {kernel<F16, kHeldOnce, 128>(), {}},
      {kernel<F16, kHeldScaledWgmma, 128>(), {0, 9}},
  };
  for (const auto& [kernel, spare] : kernels) {
    SCOPED_TRACE(kernel.name());
    const int m = kernel.footprint().token_tile + 1;
    // All rows of a warp: without weights there is nothing to overwrite.
    const int n = kernel.config.at("warp_rows");
    const GemmOnTwin whole(kernel, n, 5 * kernel.footprint().depth_tile, m);
    for (const Sync kind : {Sync::kBarrier, Sync::kMbarrierWait, Sync::kProductFence}) {
      EXPECT_EQ(unnoticed(whole, m, {}, kind), std::vector<int>{}) << static_cast<int>(kind);
    }
    EXPECT_EQ(unnoticed(whole, m, {}, Sync::kProductWait), spare);
  }
}

}  // namespace
}  // namespace w4tune

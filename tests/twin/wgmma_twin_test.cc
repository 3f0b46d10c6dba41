// wgmma on the host twin: every branch of the template but clusters, which the twin has not (GPU
// tests run them), within its error bounds and without races, and nothing in it that could be left
// out.
#include "templates/wgmma.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <string>
#include <type_traits>
#include <vector>

#include "templates/device/wgmma.cuh"
#include "tests/twin/family_checks.h"

namespace w4tune {
namespace {

using w4::BF16;
using w4::F16;
using w4::twin::Sync;

struct Shape {
  int warpgroups, fragments, token_tile, depth_tile, stages;
  int ahead = 0;
};

template <class ElementType, Shape kShape, int kGroup, Op kOp>
struct Config {
  using Element = ElementType;
  static constexpr int kWarpgroups = kShape.warpgroups;
  static constexpr int kFragments = kShape.fragments;
  static constexpr int kTokenTile = kShape.token_tile;
  static constexpr int kDepthTile = kShape.depth_tile;
  static constexpr int kStages = kShape.stages;
  static constexpr bool kAhead = kShape.ahead == 1;
  static constexpr int kGroupSize = kGroup;
  static constexpr int kReduce = 0;
  static constexpr bool kGeglu = kOp == Op::kGeglu;
};

template <class Element, Shape kShape, int kGroup, Op kOp = Op::kGemm>
TwinKernel kernel() {
  static const WgmmaTiles family;
  return {&family,
          parse_kernel_config(fmt::format(
              "wgmma warpgroups={} fragments={} token_tile={} depth_tile={} stages={} ahead={} "
              "dequant={} reduce=0",
              kShape.warpgroups, kShape.fragments, kShape.token_tile, kShape.depth_tile,
              kShape.stages, kShape.ahead, kGroup == 0 ? 1 : 0)),
          kOp,
          std::is_same_v<Element, F16> ? Dtype::kF16 : Dtype::kBF16,
          kGroup,
          [](const w4::GemmArgs& args, const w4::TensorMap& tokens, const w4::TensorMap& weights) {
            w4::wgmma_tiles<Config<Element, kShape, kGroup, kOp>>(args, tokens, weights);
          }};
}

// warpgroups, fragments, token_tile, depth_tile, stages, ahead
constexpr Shape kOneWarpgroup = {1, 1, 64, 128, 2};
constexpr Shape kOneOfPairs = {1, 2, 24, 64, 3};
constexpr Shape kTwoWarpgroups = {2, 1, 88, 128, 3, 1};
constexpr Shape kPairs = {2, 2, 40, 64, 4, 1};
constexpr Shape kDeepStep = {2, 1, 72, 256, 2, 1};
constexpr Shape kTakenRegisters = {2, 2, 64, 128, 2};  // from the producer's warpgroup
constexpr Shape kMostTokens = {2, 1, 248, 128, 2};

std::vector<TwinKernel> kernels() {
  return {
      kernel<F16, kOneWarpgroup, 128>(),
      kernel<BF16, kOneWarpgroup, 0, Op::kGeglu>(),
      kernel<F16, kOneOfPairs, 64, Op::kGeglu>(),
      kernel<BF16, kOneOfPairs, 128>(),  // half a group a step
      kernel<F16, kTwoWarpgroups, 32>(),
      kernel<BF16, kPairs, 64>(),
      kernel<F16, kPairs, 32, Op::kGeglu>(),
      kernel<F16, kDeepStep, 128>(),
      kernel<F16, kTakenRegisters, 128, Op::kGeglu>(),
      kernel<BF16, kTakenRegisters, 0>(),
  };
}

TEST(WgmmaTwin, IsWithinItsBoundsAtRaggedM) { expect_within_bounds_at_ragged_m(kernels()); }

TEST(WgmmaTwin, TheWidestTileIsWithinItsBounds) {
  const TwinKernel widest = kernel<F16, kMostTokens, 128>();
  const GemmOnTwin gemm(widest, 64, 256, 248);
  for (const int m : {1, 248}) EXPECT_EQ(gemm.run(m, {}).wrong, "") << m;
}

// Each of two CTAs has five tiles of several steps: buffers, barriers and who leads go on from one
// to the next.
TEST(WgmmaTwin, CtasWalkThroughManyTiles) {
  for (const TwinKernel& kernel :
       {kernel<F16, kOneWarpgroup, 128>(), kernel<F16, kPairs, 64, Op::kGeglu>()}) {
    const Footprint footprint = kernel.footprint();
    const int m = 4 * footprint.token_tile + 3;
    const GemmOnTwin gemm(kernel, footprint.row_tile * 2, 3 * footprint.depth_tile, m);
    for (const auto order : {w4::twin::Order::kForward, w4::twin::Order::kInterleaved}) {
      EXPECT_EQ(gemm.run(m, {{1, 1}, order, 5}).wrong, "") << kernel.name();
    }
  }
}

TEST(WgmmaTwin, ASplitHasTheSameBitsWhoeverArrivesLast) {
  expect_same_bits_whoever_arrives_last(std::vector<TwinKernel>{
      kernel<F16, kOneOfPairs, 64>(), kernel<BF16, kTwoWarpgroups, 128, Op::kGeglu>(),
      kernel<F16, kTakenRegisters, 0>()});
}

TEST(WgmmaTwin, ADependentLaunchHasTheSameBits) {
  expect_same_bits_of_a_dependent_launch(std::vector<TwinKernel>{
      kernel<F16, kOneOfPairs, 64>(), kernel<BF16, kPairs, 32, Op::kGeglu>()});
}

TEST(WgmmaTwin, HostileDataStayWithinTheBounds) {
  expect_within_bounds_on_hostile_data(std::vector<TwinKernel>{kernel<F16, kOneOfPairs, 64>()});
}

// Two tiles of five steps for each CTA, so that every buffer is filled anew. Of a tile's eleven
// waits for products the first is spare, because nothing is under way that is read or written next,
// and the last but one, because the last waits for more.
TEST(WgmmaTwin, NoBarrierAndNoWaitCanBeLeftOut) {
  for (const TwinKernel& kernel : {kernel<F16, kOneOfPairs, 64>(), kernel<F16, kPairs, 64>()}) {
    SCOPED_TRACE(kernel.name());
    const int m = 3 * kernel.footprint().token_tile + 1;
    // All rows of a warpgroup: without weights there is nothing to overwrite.
    const GemmOnTwin whole(kernel, kernel.footprint().row_tile, 5 * kernel.footprint().depth_tile,
                           m);
    for (const Sync kind : {Sync::kBarrier, Sync::kMbarrierWait, Sync::kProductFence}) {
      EXPECT_EQ(unnoticed(whole, m, {}, kind), std::vector<int>{}) << static_cast<int>(kind);
    }
    EXPECT_EQ(unnoticed(whole, m, {}, Sync::kProductWait), (std::vector<int>{0, 9, 11, 20}));
  }
}

}  // namespace
}  // namespace w4tune

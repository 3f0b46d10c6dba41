// mma_reg on the host twin: every branch of the template, within its error bounds and without
// races, and nothing in it that could be left out.
#include "templates/mma_reg.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <set>
#include <string>
#include <type_traits>
#include <vector>

#include "templates/device/mma_reg.cuh"
#include "tests/twin/family_checks.h"

namespace w4tune {
namespace {

using w4::twin::Sync;

struct Shape {
  int row_tile, token_tile, depth_warps, blocks, ahead;
};

template <class ElementType, Shape kShape, int kGroup, Op kOp>
struct Config {
  using Element = ElementType;
  static constexpr int kRowTile = kShape.row_tile;
  static constexpr int kTokenTile = kShape.token_tile;
  static constexpr int kDepthWarps = kShape.depth_warps;
  static constexpr int kBlocks = kShape.blocks;
  static constexpr int kAhead = kShape.ahead;
  static constexpr int kGroupSize = kGroup;
  static constexpr bool kGeglu = kOp == Op::kGeglu;
};

template <class Element, Shape kShape, int kGroup, Op kOp = Op::kGemm>
TwinKernel kernel() {
  static const MmaReg family;
  return {&family,
          parse_kernel_config(fmt::format("mma_reg row_tile={} token_tile={} depth_warps={} "
                                          "blocks={} ahead={} dequant=1",
                                          kShape.row_tile, kShape.token_tile, kShape.depth_warps,
                                          kShape.blocks, kShape.ahead)),
          kOp,
          std::is_same_v<Element, w4::F16> ? Dtype::kF16 : Dtype::kBF16,
          kGroup,
          [](const w4::GemmArgs& args, const w4::TensorMap& /*tokens*/,
             const w4::TensorMap& /*weights*/) {
            w4::mma_reg<Config<Element, kShape, kGroup, kOp>>(args);
          }};
}

// row_tile, token_tile, depth_warps, blocks, ahead
constexpr Shape kOneWarp = {16, 8, 1, 1, 4};    // several steps ahead
constexpr Shape kAllWarps = {32, 16, 8, 1, 1};  // more warps than fragments to add up
constexpr Shape kManyRows = {64, 24, 2, 2, 2};  // a step ahead
constexpr Shape kDeepBlocks = {16, 24, 4, 4, 1};
constexpr Shape kPartOfAStep = {32, 8, 2, 4, 2};
constexpr Shape kHalfAGroup = {16, 16, 2, 1, 2};  // a group of 128 lies in two warps
constexpr Shape kTwoSteps = {64, 8, 1, 2, 4};
constexpr Shape kWide = {16, 32, 2, 2, 1};

std::vector<TwinKernel> kernels() {
  using w4::BF16;
  using w4::F16;
  return {
      kernel<F16, kOneWarp, 128>(),
      kernel<BF16, kOneWarp, 32, Op::kGeglu>(),
      kernel<F16, kAllWarps, 64>(),
      kernel<BF16, kAllWarps, 0, Op::kGeglu>(),
      kernel<F16, kManyRows, 32>(),
      kernel<BF16, kManyRows, 128>(),
      kernel<F16, kManyRows, 128, Op::kGeglu>(),
      kernel<F16, kDeepBlocks, 0>(),
      kernel<BF16, kDeepBlocks, 128, Op::kGeglu>(),
      kernel<F16, kPartOfAStep, 128>(),
      kernel<BF16, kPartOfAStep, 32>(),
      kernel<F16, kHalfAGroup, 128>(),
      kernel<BF16, kHalfAGroup, 64, Op::kGeglu>(),
      kernel<BF16, kTwoSteps, 128>(),
      kernel<F16, kTwoSteps, 32, Op::kGeglu>(),
      kernel<F16, kWide, 64>(),
      kernel<BF16, kWide, 128, Op::kGeglu>(),
  };
}

TEST(MmaRegTwin, EveryKernelIsWithinItsBoundsAtRaggedM) {
  expect_within_bounds_at_ragged_m(kernels());
}

TEST(MmaRegTwin, ASplitGivesTheSameBitsWhoeverArrivesLast) {
  expect_same_bits_whoever_arrives_last(kernels());
}

TEST(MmaRegTwin, HostileDataStaysWithinTheBounds) {
  expect_within_bounds_on_hostile_data(kernels());
}

// Three steps: each warp's slice of x is filled anew twice, and its sums take the place of the
// last.
TEST(MmaRegTwin, NoBarrierAndNoWarpSyncCanBeLeftOut) {
  constexpr int kM = 9;
  std::set<std::string> seen;  // one kernel of each shape says it all
  for (const TwinKernel& kernel : kernels()) {
    const int k = 3 * kernel.footprint().depth_tile;
    if (kernel.group_size != 0 && k % kernel.group_size != 0) continue;
    if (!seen.insert(to_string(kernel.config)).second) continue;
    SCOPED_TRACE(kernel.name());
    // One warp alone adds up what each lane left itself.
    const std::vector<int> spare =
        kernel.config.at("depth_warps") == 1 ? std::vector<int>{0} : std::vector<int>{};
    const GemmOnTwin whole(kernel, 16, k, kM);
    EXPECT_EQ(unnoticed(whole, kM, {}, Sync::kWarpSync), std::vector<int>{});
    EXPECT_EQ(unnoticed(whole, kM, {}, Sync::kBarrier), spare);
    EXPECT_EQ(unnoticed(whole, kM, {{2, 1}}, Sync::kBarrier), spare) << "and two more of a split";
  }
  EXPECT_EQ(seen.size(), 8U) << "a shape had no group that divides its depth";
}

}  // namespace
}  // namespace w4tune

// gemv on the host twin: every branch of the template, within its error bounds and without races,
// and nothing in it that could be left out.
#include "templates/gemv.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <set>
#include <string>
#include <type_traits>
#include <vector>

#include "templates/device/gemv.cuh"
#include "tests/twin/family_checks.h"

namespace w4tune {
namespace {

using w4::twin::Sync;

struct Shape {
  int row_tile, token_tile, depth_warps, blocks, ahead, dequant;
};

template <class ElementType, Shape kShape, int kGroup, Op kOp>
struct Config {
  using Element = ElementType;
  static constexpr int kRowTile = kShape.row_tile;
  static constexpr int kTokenTile = kShape.token_tile;
  static constexpr int kDepthWarps = kShape.depth_warps;
  static constexpr int kBlocks = kShape.blocks;
  static constexpr int kAhead = kShape.ahead;
  static constexpr bool kDenormals = kShape.dequant == 2;
  static constexpr int kGroupSize = kGroup;
  static constexpr bool kGeglu = kOp == Op::kGeglu;
};

template <class Element, Shape kShape, int kGroup, Op kOp = Op::kGemm>
TwinKernel kernel() {
  static const Gemv family;
  return {&family,
          parse_kernel_config(fmt::format("gemv row_tile={} token_tile={} depth_warps={} "
                                          "blocks={} ahead={} ctas=1 dequant={}",
                                          kShape.row_tile, kShape.token_tile, kShape.depth_warps,
                                          kShape.blocks, kShape.ahead, kShape.dequant)),
          kOp,
          std::is_same_v<Element, w4::F16> ? Dtype::kF16 : Dtype::kBF16,
          kGroup,
          [](const w4::GemmArgs& args, const w4::TensorMap& /*tokens*/,
             const w4::TensorMap& /*weights*/) {
            w4::gemv<Config<Element, kShape, kGroup, kOp>>(args);
          }};
}

// row_tile, token_tile, depth_warps, blocks, ahead, dequant
constexpr Shape kOneWarp = {16, 1, 1, 1, 4, 1};     // several steps ahead; two sums a lane
constexpr Shape kManyWarps = {32, 1, 8, 1, 1, 2};   // fewer places than threads
constexpr Shape kManyRows = {64, 2, 2, 2, 2, 1};    // a step ahead
constexpr Shape kDeepBlocks = {16, 4, 4, 4, 1, 2};  // part of a step ahead
constexpr Shape kPartOfAStep = {32, 2, 2, 4, 2, 1};
constexpr Shape kHalfAGroup = {16, 2, 2, 1, 2, 2};  // a group of 128 lies in two warps
constexpr Shape kTwoSteps = {64, 4, 1, 2, 4, 2};    // more places than threads
constexpr Shape kWide = {32, 8, 2, 2, 1, 1};
constexpr Shape kWideDenormals = {16, 8, 4, 2, 2, 2};

std::vector<TwinKernel> kernels() {
  using w4::BF16;
  using w4::F16;
  return {
      kernel<F16, kOneWarp, 128>(),
      kernel<BF16, kOneWarp, 32, Op::kGeglu>(),
      kernel<F16, kOneWarp, 0, Op::kGeglu>(),
      kernel<F16, kManyWarps, 64>(),
      kernel<F16, kManyWarps, 128, Op::kGeglu>(),
      kernel<F16, kManyRows, 32>(),
      kernel<BF16, kManyRows, 128>(),
      kernel<BF16, kManyRows, 0, Op::kGeglu>(),
      kernel<F16, kDeepBlocks, 128>(),
      kernel<F16, kDeepBlocks, 32, Op::kGeglu>(),
      kernel<F16, kPartOfAStep, 128>(),
      kernel<BF16, kPartOfAStep, 64>(),
      kernel<F16, kHalfAGroup, 128>(),
      kernel<F16, kHalfAGroup, 64, Op::kGeglu>(),
      kernel<F16, kTwoSteps, 32>(),
      kernel<F16, kTwoSteps, 128, Op::kGeglu>(),
      kernel<BF16, kWide, 64, Op::kGeglu>(),
      kernel<F16, kWide, 0>(),
      kernel<F16, kWideDenormals, 64>(),
      kernel<F16, kWideDenormals, 128, Op::kGeglu>(),
  };
}

TEST(GemvTwin, EveryKernelIsWithinItsBoundsAtRaggedM) {
  expect_within_bounds_at_ragged_m(kernels());
}

TEST(GemvTwin, ASplitGivesTheSameBitsWhoeverArrivesLast) {
  expect_same_bits_whoever_arrives_last(kernels());
}

TEST(GemvTwin, HostileDataStaysWithinTheBounds) { expect_within_bounds_on_hostile_data(kernels()); }

// The longest sums: one warp alone over a great depth.
TEST(GemvTwin, DeepSumsStayWithinTheBounds) {
  constexpr int kDepth = 16384;
  for (const TwinKernel& kernel :
       {kernel<w4::F16, kOneWarp, 0>(), kernel<w4::BF16, kOneWarp, 128>(),
        kernel<w4::F16, kTwoSteps, 128>(), kernel<w4::F16, kTwoSteps, 32>()}) {
    for (const DataKind kind :
         {DataKind::kPositiveMean, DataKind::kOutliers, DataKind::kAllMinus8}) {
      const GemmOnTwin gemm(kernel, 16, kDepth, 1, kind);
      EXPECT_EQ(gemm.run(1, {}).wrong, "") << kernel.name() << " data " << static_cast<int>(kind);
    }
  }
}

// Three steps: each warp's slice of x is filled anew twice, and its sums take the place of the
// last.
TEST(GemvTwin, NoBarrierAndNoWarpSyncCanBeLeftOut) {
  std::set<std::string> seen;  // one kernel of each shape says it all
  for (const TwinKernel& kernel : kernels()) {
    const int k = 3 * kernel.footprint().depth_tile;
    if (kernel.group_size != 0 && k % kernel.group_size != 0) continue;
    if (!seen.insert(to_string(kernel.config)).second) continue;
    SCOPED_TRACE(kernel.name());
    const int m = kernel.footprint().token_tile + 1;
    const GemmOnTwin whole(kernel, 16, k, m);
    EXPECT_EQ(unnoticed(whole, m, {}, Sync::kWarpSync), std::vector<int>{});
    EXPECT_EQ(unnoticed(whole, m, {}, Sync::kBarrier), std::vector<int>{});
    EXPECT_EQ(unnoticed(whole, m, {{2, 1}}, Sync::kBarrier), std::vector<int>{})
        << "and two more of a split";
  }
  EXPECT_EQ(seen.size(), 9U) << "a shape had no group that divides its depth";
}

}  // namespace
}  // namespace w4tune

// mma_pipe on the host twin: every branch of the template, within its error bounds and without
// races, and nothing in it that could be left out.
#include "templates/mma_pipe.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <vector>

#include "templates/device/mma_pipe.cuh"
#include "tests/twin/gemm_on_twin.h"

namespace w4tune {
namespace {

using w4::twin::Order;
using w4::twin::Removal;
using w4::twin::Sync;

struct Shape {
  int row_tile, token_tile, depth_tile, stages, row_warps, token_warps, depth_warps, dequant;
};

template <class ElementType, Shape kShape, int kGroup>
struct Config {
  using Element = ElementType;
  static constexpr int kRowTile = kShape.row_tile;
  static constexpr int kTokenTile = kShape.token_tile;
  static constexpr int kDepthTile = kShape.depth_tile;
  static constexpr int kStages = kShape.stages;
  static constexpr int kRowWarps = kShape.row_warps;
  static constexpr int kTokenWarps = kShape.token_warps;
  static constexpr int kDepthWarps = kShape.depth_warps;
  static constexpr int kDequant = kShape.dequant;
  static constexpr int kReduce = 0;
  static constexpr int kGroupSize = kGroup;
};

template <class Element, Shape kShape, int kGroup>
TwinKernel kernel() {
  static const MmaPipe family;
  return {&family,
          parse_kernel_config(fmt::format(
              "mma_pipe row_tile={} token_tile={} depth_tile={} stages={} row_warps={} "
              "token_warps={} depth_warps={} dequant={} reduce=0",
              kShape.row_tile, kShape.token_tile, kShape.depth_tile, kShape.stages,
              kShape.row_warps, kShape.token_warps, kShape.depth_warps, kShape.dequant)),
          std::is_same_v<Element, w4::F16> ? Dtype::kF16 : Dtype::kBF16, kGroup,
          [](const w4::GemmArgs& args) { w4::mma_pipe<Config<Element, kShape, kGroup>>(args); }};
}

// row_tile, token_tile, depth_tile, stages, row_warps, token_warps, depth_warps, dequant
constexpr Shape kDeepWarps = {16, 8, 512, 2, 1, 1, 8, 1};
constexpr Shape kOneWarp = {16, 8, 64, 3, 1, 1, 1, 1};  // a group of 128 spans two steps
constexpr Shape kWholeGroup = {32, 16, 256, 2, 2, 1, 2, 1};
constexpr Shape kOddTokens = {64, 24, 128, 3, 4, 1, 2, 0};
constexpr Shape kManyStages = {64, 8, 64, 8, 4, 1, 1, 1};
constexpr Shape kTwoFragments = {64, 16, 128, 4, 2, 1, 1, 1};
constexpr Shape kTokenWarps = {32, 32, 64, 2, 1, 4, 1, 0};
constexpr Shape kAllWarps = {32, 32, 128, 2, 2, 2, 2, 0};
constexpr Shape kWideTile = {32, 56, 64, 4, 2, 1, 1, 1};

std::vector<TwinKernel> kernels() {
  using w4::BF16;
  using w4::F16;
  return {
      kernel<F16, kDeepWarps, 128>(),   kernel<BF16, kDeepWarps, 0>(),
      kernel<F16, kOneWarp, 128>(),     kernel<F16, kOneWarp, 32>(),
      kernel<F16, kWholeGroup, 128>(),  kernel<BF16, kWholeGroup, 64>(),
      kernel<F16, kWholeGroup, 0>(),    kernel<F16, kOddTokens, 64>(),
      kernel<BF16, kOddTokens, 32>(),   kernel<F16, kManyStages, 32>(),
      kernel<BF16, kManyStages, 128>(), kernel<F16, kTwoFragments, 64>(),
      kernel<F16, kTokenWarps, 128>(),  kernel<BF16, kTokenWarps, 64>(),
      kernel<F16, kAllWarps, 32>(),     kernel<BF16, kAllWarps, 128>(),
      kernel<BF16, kWideTile, 128>(),   kernel<F16, kWideTile, 0>(),
  };
}

// n is no multiple of any row tile but 16; m is ragged and straddles the token tiles.
TEST(MmaPipeTwin, EveryKernelIsWithinItsBoundsAtRaggedM) {
  for (const TwinKernel& kernel : kernels()) {
    const GemmOnTwin gemm(kernel, 80, 512, 33);
    for (const int m : {1, 8, 19, 33}) {
      EXPECT_EQ(gemm.run(m, {}).wrong, "") << kernel.name() << " m=" << m;
    }
  }
}

TEST(MmaPipeTwin, ASplitGivesTheSameBitsWhoeverArrivesLast) {
  for (const TwinKernel& kernel : kernels()) {
    const GemmOnTwin gemm(kernel, 48, 1024, 17);
    for (const Schedule schedule : {Schedule{2, 1}, Schedule{3, 2}}) {
      std::vector<std::uint16_t> first;
      for (const Order order : {Order::kForward, Order::kReversed, Order::kInterleaved}) {
        const TwinOutcome outcome = gemm.run(17, {schedule, order, 3});
        EXPECT_EQ(outcome.wrong, "") << kernel.name() << " split=" << schedule.split_k;
        if (first.empty()) first = outcome.y;
        EXPECT_EQ(outcome.y, first) << kernel.name() << " split=" << schedule.split_k;
      }
    }
  }
}

TEST(MmaPipeTwin, HostileDataStaysWithinTheBounds) {
  for (const TwinKernel& kernel : kernels()) {
    for (const DataKind kind : {DataKind::kPositiveMean, DataKind::kOutliers, DataKind::kAllMinus8,
                                DataKind::kZeroScales}) {
      const GemmOnTwin gemm(kernel, 16, 1024, 9, kind);
      EXPECT_EQ(gemm.run(9, {{2, 1}}).wrong, "")
          << kernel.name() << " data " << static_cast<int>(kind);
    }
  }
}

}  // namespace
}  // namespace w4tune

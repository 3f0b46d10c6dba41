// mma_pipe on the host twin: every branch of the template, within its error bounds and without
// races, and nothing in it that could be left out.
#include "templates/mma_pipe.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <set>
#include <string>
#include <type_traits>
#include <vector>

#include "templates/device/mma_pipe.cuh"
#include "tests/twin/family_checks.h"

namespace w4tune {
namespace {

using w4::twin::Sync;

struct Shape {
  int row_tile, token_tile, depth_tile, stages, row_warps, token_warps, depth_warps, dequant;
};

template <class ElementType, Shape kShape, int kGroup, Op kOp>
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
  static constexpr bool kEvictFirst = false;
  static constexpr int kGroupSize = kGroup;
  static constexpr bool kGeglu = kOp == Op::kGeglu;
};

template <class Element, Shape kShape, int kGroup, Op kOp = Op::kGemm>
TwinKernel kernel() {
  static const MmaPipe family;
  return {&family,
          parse_kernel_config(fmt::format(
              "mma_pipe row_tile={} token_tile={} depth_tile={} stages={} row_warps={} "
              "token_warps={} depth_warps={} dequant={} reduce=0 evict_first=0",
              kShape.row_tile, kShape.token_tile, kShape.depth_tile, kShape.stages,
              kShape.row_warps, kShape.token_warps, kShape.depth_warps, kShape.dequant)),
          kOp,
          std::is_same_v<Element, w4::F16> ? Dtype::kF16 : Dtype::kBF16,
          kGroup,
          [](const w4::GemmArgs& args, const w4::TensorMap& /*tokens*/,
             const w4::TensorMap& /*weights*/) {
            w4::mma_pipe<Config<Element, kShape, kGroup, kOp>>(args);
          }};
}

// row_tile, token_tile, depth_tile, stages, row_warps, token_warps, depth_warps, dequant
constexpr Shape kDeepWarps = {16, 16, 512, 2, 1, 1, 8, 1};
constexpr Shape kDenormals = {32, 16, 256, 2, 1, 1, 2, 2};
constexpr Shape kBytes = {64, 24, 64, 3, 2, 1, 1, 3};
constexpr Shape kThirteenWarps = {208, 8, 64, 3, 13, 1, 1, 1};
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
      kernel<F16, kDeepWarps, 128>(),
      kernel<BF16, kDeepWarps, 0>(),
      kernel<F16, kOneWarp, 128>(),
      kernel<F16, kOneWarp, 32>(),
      kernel<F16, kWholeGroup, 128>(),
      kernel<BF16, kWholeGroup, 64>(),
      kernel<F16, kWholeGroup, 0>(),
      kernel<F16, kOddTokens, 64>(),
      kernel<BF16, kOddTokens, 32>(),
      kernel<F16, kManyStages, 32>(),
      kernel<BF16, kManyStages, 128>(),
      kernel<F16, kTwoFragments, 64>(),
      kernel<F16, kTokenWarps, 128>(),
      kernel<BF16, kTokenWarps, 64>(),
      kernel<F16, kAllWarps, 32>(),
      kernel<BF16, kAllWarps, 128>(),
      kernel<BF16, kWideTile, 128>(),
      kernel<F16, kWideTile, 0>(),
      kernel<F16, kDeepWarps, 128, Op::kGeglu>(),
      kernel<BF16, kOneWarp, 32, Op::kGeglu>(),
      kernel<BF16, kOddTokens, 64, Op::kGeglu>(),
      kernel<F16, kManyStages, 128, Op::kGeglu>(),
      kernel<BF16, kWideTile, 0, Op::kGeglu>(),
      kernel<F16, kAllWarps, 64, Op::kGeglu>(),
      kernel<F16, kDenormals, 128>(),
      kernel<F16, kDenormals, 32>(),
      kernel<F16, kDenormals, 64, Op::kGeglu>(),
      kernel<F16, kBytes, 64>(),
      kernel<F16, kBytes, 32, Op::kGeglu>(),
      kernel<F16, kThirteenWarps, 128>(),
  };
}

TEST(MmaPipeTwin, EveryKernelIsWithinItsBoundsAtRaggedM) {
  expect_within_bounds_at_ragged_m(kernels());
}

TEST(MmaPipeTwin, ASplitGivesTheSameBitsWhoeverArrivesLast) {
  expect_same_bits_whoever_arrives_last(kernels());
}

TEST(MmaPipeTwin, ADependentLaunchGivesTheSameBits) {
  expect_same_bits_of_a_dependent_launch(kernels());
}

TEST(MmaPipeTwin, HostileDataStaysWithinTheBounds) {
  expect_within_bounds_on_hostile_data(kernels());
}

// One step more than there are stages: every buffer is used, the first one twice, and the epilogue
// finds its shared memory in use by the last step.
TEST(MmaPipeTwin, NoBarrierAndNoWaitCanBeLeftOut) {
  constexpr int kM = 9;
  std::set<std::string> seen;  // one kernel of each shape says it all
  for (const TwinKernel& kernel : kernels()) {
    const int steps = kernel.config.at("stages") + 1;
    const int k = steps * kernel.config.at("depth_tile");
    if (kernel.group_size != 0 && k % kernel.group_size != 0) continue;
    if (!seen.insert(to_string(kernel.config)).second) continue;
    SCOPED_TRACE(kernel.name());
    const GemmOnTwin whole(kernel, 16, k, kM);
    EXPECT_EQ(unnoticed(whole, kM, {}, Sync::kBarrier), std::vector<int>{});
    // The wait behind the loop finds empty groups only: the last step has waited for the last copy.
    EXPECT_EQ(unnoticed(whole, kM, {}, Sync::kCopyWait), std::vector<int>{steps});
    // A split adds three barriers, before the one of the output; those between the loop and them
    // are then spare, because nothing touches shared memory in between.
    const GemmOnTwin shared(kernel, 16, 2 * k, kM);
    EXPECT_EQ(unnoticed(shared, kM, {{2, 1}}, Sync::kBarrier, -4), std::vector<int>{});
  }
  EXPECT_EQ(seen.size(), 12U) << "a shape had no group that divides its depth";
}

}  // namespace
}  // namespace w4tune

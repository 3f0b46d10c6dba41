// mma_tile on the host twin: every branch of the template, within its error bounds and without
// races, and nothing in it that could be left out.
#include "templates/mma_tile.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <set>
#include <string>
#include <type_traits>
#include <vector>

#include "templates/device/mma_tile.cuh"
#include "tests/twin/family_checks.h"

namespace w4tune {
namespace {

using w4::twin::Sync;

struct Shape {
  int row_tile, warp_rows, token_tile, stages;
};

template <class ElementType, Shape kShape, int kGroup, Op kOp>
struct Config {
  using Element = ElementType;
  static constexpr int kRowTile = kShape.row_tile;
  static constexpr int kWarpRows = kShape.warp_rows;
  static constexpr int kTokenTile = kShape.token_tile;
  static constexpr int kDepthTile = 64;
  static constexpr int kStages = kShape.stages;
  static constexpr bool kEvictFirst = false;
  static constexpr int kGroupSize = kGroup;
  static constexpr bool kGeglu = kOp == Op::kGeglu;
};

template <class Element, Shape kShape, int kGroup, Op kOp = Op::kGemm>
TwinKernel kernel() {
  static const MmaTile family;
  return {&family,
          parse_kernel_config(fmt::format(
              "mma_tile row_tile={} warp_rows={} token_tile={} stages={} ctas=1 dequant={}",
              kShape.row_tile, kShape.warp_rows, kShape.token_tile, kShape.stages,
              kGroup == 0 ? 1 : 0)),
          kOp,
          std::is_same_v<Element, w4::F16> ? Dtype::kF16 : Dtype::kBF16,
          kGroup,
          [](const w4::GemmArgs& args, const w4::TensorMap& /*tokens*/,
             const w4::TensorMap& /*weights*/) {
            w4::mma_tile<Config<Element, kShape, kGroup, kOp>>(args);
          }};
}

// row_tile, warp_rows, token_tile, stages
constexpr Shape kTwoStages = {64, 32, 32, 2};    // fewer pairs of tokens than a window holds
constexpr Shape kNarrow = {64, 16, 40, 3};       // the last pair has one fragment
constexpr Shape kOneWarp = {64, 64, 64, 2};      // as many pairs as a window holds
constexpr Shape kEightyEight = {64, 32, 88, 4};  // loads run ahead across steps
constexpr Shape kWide = {128, 32, 128, 6};
constexpr Shape kThreeRows = {192, 48, 56, 3};

std::vector<TwinKernel> kernels() {
  using w4::BF16;
  using w4::F16;
  return {
      kernel<F16, kTwoStages, 128>(),
      kernel<BF16, kTwoStages, 0>(),
      kernel<BF16, kNarrow, 64>(),
      kernel<F16, kNarrow, 32>(),
      kernel<F16, kEightyEight, 128>(),
      kernel<BF16, kEightyEight, 32>(),
      kernel<F16, kEightyEight, 0>(),
      kernel<F16, kWide, 64>(),
      kernel<BF16, kThreeRows, 64>(),
      kernel<F16, kOneWarp, 32>(),
      kernel<F16, kTwoStages, 64, Op::kGeglu>(),
      kernel<BF16, kNarrow, 0, Op::kGeglu>(),
      kernel<F16, kEightyEight, 128, Op::kGeglu>(),
      kernel<BF16, kWide, 32, Op::kGeglu>(),
  };
}

TEST(MmaTileTwin, EveryKernelIsWithinItsBoundsAtRaggedM) {
  expect_within_bounds_at_ragged_m(kernels());
}

TEST(MmaTileTwin, ASplitGivesTheSameBitsWhoeverArrivesLast) {
  expect_same_bits_whoever_arrives_last(kernels());
}

TEST(MmaTileTwin, ADependentLaunchGivesTheSameBits) {
  expect_same_bits_of_a_dependent_launch(kernels());
}

TEST(MmaTileTwin, HostileDataStaysWithinTheBounds) {
  expect_within_bounds_on_hostile_data(kernels());
}

// Two steps more than there are stages: the buffers that are refilled first are read again. Each
// step has one wait and one barrier, and nothing stands behind the last.
TEST(MmaTileTwin, NoBarrierAndNoWaitCanBeLeftOut) {
  constexpr int kM = 9;
  std::set<std::string> seen;  // one kernel of each shape says it all
  for (const TwinKernel& kernel : kernels()) {
    const int steps = kernel.config.at("stages") + 2;
    const int k = steps * 64;
    if (kernel.group_size != 0 && k % kernel.group_size != 0) continue;
    if (!seen.insert(kernel.name().substr(0, kernel.name().find(" dequant"))).second) continue;
    SCOPED_TRACE(kernel.name());
    const GemmOnTwin whole(kernel, 32, k, kM);
    EXPECT_EQ(unnoticed(whole, kM, {}, Sync::kBarrier), std::vector<int>{});
    EXPECT_EQ(unnoticed(whole, kM, {}, Sync::kCopyWait), std::vector<int>{});
    const GemmOnTwin shared(kernel, 32, 2 * k, kM);
    EXPECT_EQ(unnoticed(shared, kM, {{2, 1}}, Sync::kBarrier), std::vector<int>{});
  }
  EXPECT_EQ(seen.size(), 6U) << "a shape had no group that divides its depth";
}

}  // namespace
}  // namespace w4tune

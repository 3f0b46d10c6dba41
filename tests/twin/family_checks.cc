#include "tests/twin/family_checks.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace w4tune {
namespace {

using w4::twin::Order;
using w4::twin::Removal;
using w4::twin::Sync;

constexpr int kLeastDepth = 256;  // two groups of 128, four blocks of the weight layout

int depth_of(const Footprint& footprint, int steps) {
  return std::max(kLeastDepth, steps * footprint.depth_tile);
}

// Outputs of a tile's rows, in sixteens.
int outputs_of(const TwinKernel& kernel, int rows) {
  return kernel.op == Op::kGeglu ? (rows + 31) / 32 * 16 : rows;
}

}  // namespace

void expect_within_bounds_at_ragged_m(std::span<const TwinKernel> kernels) {
  for (const TwinKernel& kernel : kernels) {
    const Footprint footprint = kernel.footprint();
    const int tile = footprint.token_tile;
    const GemmOnTwin gemm(kernel, outputs_of(kernel, footprint.row_tile) + 16,
                          depth_of(footprint, 1), tile + 3);
    for (const int m : {1, tile, tile + 3}) {
      for (const int raster : {1, 2}) {
        if (m <= tile && raster > 1) continue;  // the same walk
        EXPECT_EQ(gemm.run(m, {{1, raster}}).wrong, "") << kernel.name() << " m=" << m;
      }
    }
  }
}

void expect_same_bits_whoever_arrives_last(std::span<const TwinKernel> kernels) {
  for (const TwinKernel& kernel : kernels) {
    const Footprint footprint = kernel.footprint();
    const int m = footprint.token_tile + 1;
    const GemmOnTwin gemm(kernel, 16, depth_of(footprint, 4), m);
    std::vector<std::uint16_t> first;
    for (const Order order : {Order::kForward, Order::kReversed, Order::kInterleaved}) {
      const TwinOutcome outcome = gemm.run(m, {{3, 1}, order, 3});
      EXPECT_EQ(outcome.wrong, "") << kernel.name();
      if (first.empty()) first = outcome.y;
      EXPECT_EQ(outcome.y, first) << kernel.name();
    }
  }
}

void expect_same_bits_of_a_dependent_launch(std::span<const TwinKernel> kernels) {
  for (const TwinKernel& kernel : kernels) {
    const Footprint footprint = kernel.footprint();
    const int m = footprint.token_tile + 1;
    for (const int steps : {1, 10}) {
      const GemmOnTwin gemm(kernel, 16, depth_of(footprint, steps), m);
      TwinLaunch launch;
      const TwinOutcome expected = gemm.run(m, launch);
      launch.dependent = true;
      const TwinOutcome outcome = gemm.run(m, launch);
      EXPECT_EQ(outcome.wrong, "") << kernel.name();
      EXPECT_EQ(outcome.y, expected.y) << kernel.name();
    }
  }
}

void expect_within_bounds_on_hostile_data(std::span<const TwinKernel> kernels) {
  for (const TwinKernel& kernel : kernels) {
    for (const DataKind kind : {DataKind::kPositiveMean, DataKind::kOutliers, DataKind::kAllMinus8,
                                DataKind::kZeroScales}) {
      const GemmOnTwin gemm(kernel, 16, depth_of(kernel.footprint(), 2), 9, kind);
      EXPECT_EQ(gemm.run(9, {}).wrong, "") << kernel.name() << " data " << static_cast<int>(kind);
    }
  }
}

std::vector<int> unnoticed(const GemmOnTwin& gemm, int m, TwinLaunch launch, Sync kind, int first) {
  const TwinOutcome outcome = gemm.run(m, launch);
  EXPECT_EQ(outcome.wrong, "");
  std::vector<int> indices;
  const int calls = outcome.report.calls[static_cast<std::size_t>(kind)];
  for (int index = first < 0 ? std::max(0, calls + first) : first; index < calls; ++index) {
    launch.removal = Removal{kind, index};
    if (gemm.run(m, launch).wrong.empty()) indices.push_back(index);
  }
  return indices;
}

}  // namespace w4tune

// What bulk_pipe alone offers: token tiles beyond 64, for many tokens.
#include "templates/bulk_pipe.h"

#include <gtest/gtest.h>

#include <set>

namespace w4tune {
namespace {

constexpr std::size_t kWorkspace = std::size_t{64} << 20;

// Token tiles beyond 64 that are searched for 16384x2048 on an H200.
std::set<int> wide_tiles(int m, int group) {
  const BulkPipe family;
  const Workload workload{{Op::kGeglu, 16384, 2048, group, Dtype::kF16}, m};
  const Space space = family.space(workload, find_known_device("h200")->info, kWorkspace);
  std::set<int> tiles;
  for (const Point& point : space.enumerate().points) {
    const int tile = space.value(point, "token_tile");
    if (tile <= 64) continue;
    tiles.insert(tile);
    EXPECT_EQ(space.value(point, "math"), 1);
    EXPECT_EQ(space.value(point, "dequant"), group == 2048 ? 1 : 0);
    EXPECT_LE(tile * space.value(point, "warp_rows") / 32, 128) << "sums of a thread";
  }
  return tiles;
}

TEST(BulkPipe, WideTilesAreForManyTokensAndLittlePadding) {
  for (const int m : {1, 10, 50, 64}) EXPECT_EQ(wide_tiles(m, 128), std::set<int>{}) << m;
  EXPECT_EQ(wide_tiles(96, 128), (std::set<int>{96, 128}));
  EXPECT_EQ(wide_tiles(130, 128), (std::set<int>{}));
  for (const int group : {32, 128, 2048}) {
    EXPECT_EQ(wide_tiles(968, group), (std::set<int>{96, 128, 192, 256})) << group;
  }
}

// Its threads are what the device text counts, and the register file holds what they begin with.
TEST(BulkPipe, ConsumersOf128SumsTakeRegistersFromAWarpgroup) {
  const BulkPipe family;
  const Problem problem{Op::kGemm, 16384, 2048, 128, Dtype::kF16};
  const auto threads = [&](const char* sizes) {
    return family
        .footprint(parse_kernel_config(std::string("bulk_pipe depth_warps=1 depth_tile=128 "
                                                   "stages=2 ahead=0 math=1 dequant=0 reduce=0 ") +
                                       sizes),
                   problem)
        .threads;
  };
  EXPECT_EQ(threads("row_warps=8 warp_rows=16 token_tile=192"), 288);
  EXPECT_EQ(threads("row_warps=8 warp_rows=16 token_tile=256"), 384);
  EXPECT_EQ(threads("row_warps=8 warp_rows=32 token_tile=128"), 384);
  EXPECT_EQ(threads("row_warps=4 warp_rows=32 token_tile=128"), 160);
}

}  // namespace
}  // namespace w4tune

// What wgmma offers, and the text of its products.
#include "templates/wgmma.h"

#include <gtest/gtest.h>

#include <set>

#include "templates/wgmma_text.h"

namespace w4tune {
namespace {

constexpr std::size_t kWorkspace = std::size_t{64} << 20;

std::set<int> token_tiles(int m, int group) {
  const WgmmaTiles family;
  const Workload workload{{Op::kGeglu, 16384, 2048, group, Dtype::kF16}, m};
  const Space space = family.space(workload, find_known_device("h200")->info, kWorkspace);
  std::set<int> tiles;
  for (const Point& point : space.enumerate().points) {
    const int tile = space.value(point, "token_tile");
    tiles.insert(tile);
    EXPECT_EQ(space.value(point, "dequant"), group == 2048 ? 1 : 0);
    EXPECT_LE(tile * space.value(point, "fragments") / 2, 128) << "sums of a thread";
  }
  return tiles;
}

TEST(Wgmma, NoTokenTileIsLargerThanItsNumberOfTilesNeeds) {
  EXPECT_EQ(token_tiles(130, 128), (std::set<int>{64, 72, 136}));
  for (const int group : {32, 128, 2048}) {
    EXPECT_EQ(token_tiles(968, group),
              (std::set<int>{64, 72, 80, 88, 104, 112, 128, 144, 168, 200, 248}))
        << group;
  }
}

// Its threads are what the device text counts, and the register file holds what they begin with.
TEST(Wgmma, ConsumersOfManySumsTakeRegistersFromAWarpgroup) {
  const WgmmaTiles family;
  const Problem problem{Op::kGemm, 16384, 2048, 128, Dtype::kF16};
  const auto threads = [&](const char* sizes) {
    return family
        .footprint(
            parse_kernel_config(
                std::string("wgmma depth_tile=128 stages=2 ahead=0 dequant=0 reduce=0 ") + sizes),
            problem)
        .threads;
  };
  EXPECT_EQ(threads("warpgroups=2 fragments=1 token_tile=112"), 288);
  EXPECT_EQ(threads("warpgroups=2 fragments=1 token_tile=120"), 384);
  EXPECT_EQ(threads("warpgroups=2 fragments=2 token_tile=128"), 384);
  EXPECT_EQ(threads("warpgroups=1 fragments=2 token_tile=128"), 160);
}

TEST(Wgmma, TheTextNamesEverySumOnceAndTheOperandsBehind) {
  const std::string text = wgmma_text(16, Dtype::kBF16);
  EXPECT_NE(text.find("struct Wgmma<BF16, 16>"), std::string::npos);
  EXPECT_NE(text.find("m64n16k16.f32.bf16.bf16 "), std::string::npos) << text;
  EXPECT_NE(text.find("{%0,%1,%2,%3,%4,%5,%6,%7}, {%8,%9,%10,%11}, %12, p"), std::string::npos)
      << text;
  EXPECT_NE(text.find("setp.ne.b32 p, %13, 0"), std::string::npos);
  EXPECT_NE(text.find("\"+f\"(d[7])\n"), std::string::npos);
  EXPECT_DEATH(wgmma_text(12, Dtype::kF16), "a shape that wgmma has");
}

}  // namespace
}  // namespace w4tune

// What mma_tile alone promises: token tiles of any multiple of 8, and an A40 near its matrix floor.
#include "templates/mma_tile.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <set>

namespace w4tune {
namespace {

constexpr std::size_t kWorkspace = std::size_t{64} << 20;

DeviceInfo gpu(std::string_view alias) { return find_known_device(alias)->info; }

std::set<int> offered(std::string_view alias, const Workload& workload, std::string_view name) {
  const Space space = MmaTile().space(workload, gpu(alias), kWorkspace);
  std::set<int> values;
  for (const Point& point : space.enumerate().points) values.insert(space.value(point, name));
  return values;
}

TEST(MmaTile, TokenTilesAreMultiplesOf8WithLittlePadding) {
  const Problem problem{Op::kGemm, 16384, 2048, 128, Dtype::kF16};
  const std::set<int> of_968 = offered("a40", {problem, 968}, "token_tile");
  for (const int tile : {32, 88, 96, 104, 112, 128, 168}) EXPECT_EQ(of_968.count(tile), 1U) << tile;
  EXPECT_EQ(of_968.count(160), 0U) << "1120 for 968 tokens";
  EXPECT_EQ(of_968.count(120), 0U) << "1080 for 968 tokens";
  EXPECT_EQ(offered("a40", {problem, 240}, "token_tile").count(120), 1U);
  EXPECT_EQ(offered("a40", {problem, 100}, "token_tile"), (std::set<int>{56, 104}));
  EXPECT_EQ(offered("a40", {problem, 24}, "token_tile"), std::set<int>{});
}

TEST(MmaTile, SixteenRowsAWarpAreNotForHopper) {
  const Workload workload{{Op::kGeglu, 4096, 1024, 128, Dtype::kBF16}, 968};
  EXPECT_EQ(offered("a40", workload, "warp_rows").count(16), 1U);
  EXPECT_EQ(offered("h100", workload, "warp_rows").count(16), 0U);
}

TEST(MmaTile, OneScaleARowGoesToTheSums) {
  const Problem problem{Op::kGemm, 4096, 1024, 1024, Dtype::kF16};
  EXPECT_EQ(offered("a40", {problem, 968}, "dequant"), std::set<int>{1});
  EXPECT_EQ(offered("a40", {{Op::kGemm, 4096, 1024, 128, Dtype::kF16}, 968}, "dequant"),
            std::set<int>{0});
}

TEST(MmaTile, SplitsOnlyADepthThatIsWorthIt) {
  const int m = 200;
  EXPECT_GT(offered("a40", {{Op::kGemm, 2048, 16384, 128, Dtype::kF16}, m}, "split_k").size(), 1U);
  EXPECT_EQ(offered("a40", {{Op::kGemm, 4096, 1024, 128, Dtype::kF16}, m}, "split_k"),
            std::set<int>{1});
}

TEST(MmaTile, PredictsAnA40Within1p2OfItsMatrixFloorAt968Tokens) {
  const DeviceInfo device = gpu("a40");
  const Rates rates = rates_of(device);
  const MmaTile family;
  for (const Problem& problem : {Problem{Op::kGemm, 16384, 2048, 128, Dtype::kF16},
                                 {Op::kGemm, 2048, 16384, 128, Dtype::kF16},
                                 {Op::kGemm, 4096, 1024, 128, Dtype::kF16},
                                 {Op::kGemm, 1024, 4096, 128, Dtype::kF16},
                                 {Op::kGeglu, 16384, 2048, 128, Dtype::kF16},
                                 {Op::kGeglu, 4096, 1024, 128, Dtype::kF16}}) {
    const Workload workload{problem, 968};
    const Space space = family.space(workload, device, kWorkspace);
    double best = std::numeric_limits<double>::infinity();
    for (const Point& point : space.enumerate().points) {
      const Candidate candidate = candidate_at(family, space, point);
      best = std::min(best, family.cost(candidate, workload, device).total_us);
    }
    EXPECT_LE(best, 1.2 * floor_us(workload, rates.dram_gbps, rates.mma_tflops))
        << to_string(workload);
  }
}

}  // namespace
}  // namespace w4tune

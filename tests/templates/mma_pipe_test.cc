// What mma_pipe alone offers: nibbles as denormals, and what suits the A40.
#include "templates/mma_pipe.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <optional>
#include <set>

namespace w4tune {
namespace {

constexpr std::size_t kWorkspace = std::size_t{64} << 20;

DeviceInfo gpu(std::string_view alias) { return find_known_device(alias)->info; }

// How many points of the space use nibbles as denormals, and why there are none.
std::pair<long, std::set<std::string>> denormal_points(const Problem& problem,
                                                       std::optional<bool> mma_denormals) {
  const MmaPipe family;
  DeviceInfo device = gpu("a40");
  device.mma_denormals = mma_denormals;
  const Space space = family.space({problem, 16}, device, kWorkspace);
  const Enumeration all = space.enumerate();
  const auto count = std::count_if(all.points.begin(), all.points.end(), [&](const Point& point) {
    return space.value(point, "dequant") >= 2;
  });
  std::set<std::string> reasons;
  for (const auto& [reason, rejected] : all.rejected) {
    if (reason.find("denormals") != std::string::npos) reasons.insert(reason);
  }
  return {count, reasons};
}

TEST(MmaPipe, NibblesAsDenormalsNeedFp16AndAProbeThatFoundThem) {
  const Problem problem{Op::kGemm, 4096, 1024, 128, Dtype::kF16};
  const auto [allowed, no_reason] = denormal_points(problem, true);
  EXPECT_GT(allowed, 0);
  EXPECT_TRUE(no_reason.empty());
  const auto [unprobed, why_unprobed] = denormal_points(problem, std::nullopt);
  EXPECT_EQ(unprobed, 0);
  EXPECT_EQ(why_unprobed.size(), 1U);
  const auto [flushed, why_flushed] = denormal_points(problem, false);
  EXPECT_EQ(flushed, 0);
  EXPECT_NE(why_flushed, why_unprobed);
  Problem other = problem;
  other.dtype = Dtype::kBF16;
  const auto [of_bf16, why_not_bf16] = denormal_points(other, true);
  EXPECT_EQ(of_bf16, 0);
  ASSERT_EQ(why_not_bf16.size(), 1U);
  EXPECT_NE(why_not_bf16.begin()->find("BF16"), std::string::npos);
  other = problem;
  other.group_size = other.k;
  EXPECT_EQ(denormal_points(other, true).first, 0) << "a scale per row is D1's";
}

TEST(MmaPipe, TheA40HasTilesOfThirteenFragmentsSplitsOfFiveAndTheHint) {
  const MmaPipe family;
  const auto offered = [&](std::string_view alias, const Problem& problem, std::string_view name) {
    const Space space = family.space({problem, 10}, gpu(alias), kWorkspace);
    std::set<int> values;
    for (const Point& point : space.enumerate().points) values.insert(space.value(point, name));
    return values;
  };
  const Problem wide{Op::kGemm, 16384, 2048, 128, Dtype::kF16};
  const Problem deep{Op::kGemm, 2048, 16384, 128, Dtype::kF16};
  EXPECT_EQ(offered("a40", wide, "row_tile").count(208), 1U);
  EXPECT_EQ(offered("a40", wide, "row_warps").count(13), 1U);
  EXPECT_EQ(offered("a40", deep, "split_k").count(5), 1U);
  EXPECT_EQ(offered("a40", wide, "evict_first"), (std::set<int>{0, 1}));
  EXPECT_EQ(offered("h200", wide, "row_tile").count(208), 0U);
  EXPECT_EQ(offered("h200", wide, "evict_first"), std::set<int>{0})
      << "an illegal instruction on sm_90";
}

TEST(MmaPipe, WithoutHintsIsTheSameKernelButForTheHint) {
  const MmaPipe family;
  const Problem problem{Op::kGemm, 4096, 1024, 128, Dtype::kF16};
  KernelConfig config = parse_kernel_config(
      "mma_pipe row_tile=64 token_tile=16 depth_tile=128 stages=4 row_warps=2 token_warps=1 "
      "depth_warps=2 dequant=1 reduce=0 evict_first=1");
  const KernelConfig plain = family.without_hints(config);
  EXPECT_EQ(plain.at("evict_first"), 0);
  EXPECT_EQ(family.footprint(plain, problem), family.footprint(config, problem));
  config.parameters.back().second = 0;
  EXPECT_EQ(plain, config);
}

}  // namespace
}  // namespace w4tune

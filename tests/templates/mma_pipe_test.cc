#include "templates/mma_pipe.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <optional>
#include <set>

#include "templates/cost.h"

namespace w4tune {
namespace {

constexpr std::size_t kWorkspace = std::size_t{64} << 20;

DeviceInfo gpu(std::string_view alias) { return find_known_device(alias)->info; }

std::vector<Workload> pi05_workloads() {
  std::vector<Workload> workloads;
  for (const auto& [n, k] : {std::pair{16384, 2048}, {2048, 16384}, {4096, 1024}, {1024, 4096}}) {
    for (const int m : {1, 10, 16, 50, 128, 968, 1024}) {
      workloads.push_back({{Op::kGemm, n, k, 128, Dtype::kF16}, m});
      if (n > k) workloads.push_back({{Op::kGeglu, n, k, 128, Dtype::kF16}, m});
    }
  }
  return workloads;
}

TEST(MmaPipe, EverySpaceOfThePlanHasCandidatesWithinTheDeviceLimits) {
  const MmaPipe family;
  for (const char* alias : {"a40", "a100", "h200"}) {
    const DeviceInfo device = gpu(alias);
    for (const Workload& workload : pi05_workloads()) {
      const Space space = family.space(workload, device, kWorkspace);
      const Enumeration all = space.enumerate();
      ASSERT_GE(all.points.size(), 20U) << alias << " " << to_string(workload);
      for (const Point& point : all.points) {
        const Candidate candidate = candidate_at(family, space, point);
        const Footprint footprint = family.footprint(candidate.config, workload.problem);
        ASSERT_LE(static_cast<std::size_t>(footprint.smem_bytes), device.smem_block_bytes);
        ASSERT_LE(footprint.threads, 512);
        const LaunchPlan plan =
            make_launch_plan(footprint, workload.problem, workload.m, candidate.schedule);
        ASSERT_LE(plan.partial_bytes, kWorkspace);
        ASSERT_EQ(plan.schedule.split_k, candidate.schedule.split_k) << "never clamped";
      }
    }
  }
}

TEST(MmaPipe, ConstraintsNameWhatTheyRejectAndAddUp) {
  const MmaPipe family;
  const Workload workload{{Op::kGemm, 4096, 1024, 128, Dtype::kF16}, 10};
  const Enumeration all = family.space(workload, gpu("a40"), kWorkspace).enumerate();
  std::uint64_t rejected = 0;
  for (const auto& [reason, count] : all.rejected) {
    EXPECT_FALSE(reason.empty());
    rejected += count;
  }
  EXPECT_EQ(rejected + all.points.size(), all.raw_count);
}

TEST(MmaPipe, CandidatesAndPointsConvertBothWays) {
  const MmaPipe family;
  const Workload workload{{Op::kGemm, 1024, 4096, 128, Dtype::kBF16}, 50};
  const Space space = family.space(workload, gpu("h200"), kWorkspace);
  for (const Point& point : space.enumerate().points) {
    const Candidate candidate = candidate_at(family, space, point);
    ASSERT_EQ(point_of(space, candidate), point);
    ASSERT_EQ(parse_kernel_config(to_string(candidate.config)), candidate.config);
  }
}

TEST(MmaPipe, RefusesWhatItCannotCompute) {
  const MmaPipe family;
  const Problem problem{Op::kGemm, 4096, 1024, 128, Dtype::kF16};
  EXPECT_EQ(family.why_not(problem, gpu("a40")), "");
  DeviceInfo turing = gpu("a40");
  turing.sm = 75;
  EXPECT_NE(family.why_not(problem, turing), "");
}

TEST(MmaPipe, SourceDoesNotDependOnShape) {
  const MmaPipe family;
  const KernelConfig config = parse_kernel_config(
      "mma_pipe row_tile=64 token_tile=16 depth_tile=128 stages=4 row_warps=2 token_warps=1 "
      "depth_warps=2 dequant=1 reduce=0 evict_first=0");
  EXPECT_EQ(family.source(config, {Op::kGemm, 4096, 1024, 128, Dtype::kF16}),
            family.source(config, {Op::kGemm, 16384, 2048, 128, Dtype::kF16}));
  EXPECT_EQ(family.source(config, {Op::kGemm, 4096, 1024, 1024, Dtype::kF16}),
            family.source(config, {Op::kGemm, 16384, 2048, 2048, Dtype::kF16}))
      << "a scale per output is the same kernel at every K";
}

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

TEST(MmaPipe, GegluCountsTheWorkOfItsTwiceAsManyRows) {
  const MmaPipe family;
  const KernelConfig config = parse_kernel_config(
      "mma_pipe row_tile=64 token_tile=16 depth_tile=128 stages=4 row_warps=2 token_warps=1 "
      "depth_warps=2 dequant=1 reduce=0 evict_first=0");
  const Workload geglu{{Op::kGeglu, 4096, 1024, 128, Dtype::kF16}, 16};
  const Workload twice{{Op::kGemm, 8192, 1024, 128, Dtype::kF16}, 16};
  const Candidate candidate{config, {2, 1}};
  const Cost fused = family.cost(candidate, geglu, gpu("a40"));
  const Cost plain = family.cost(candidate, twice, gpu("a40"));
  EXPECT_EQ(fused.mma_us, plain.mma_us);
  EXPECT_EQ(fused.l2_us, plain.l2_us);
  EXPECT_LT(fused.dram_us, plain.dram_us) << "y is half as wide";
  const auto plan = [&](const Workload& workload) {
    return make_launch_plan(family.footprint(config, workload.problem), workload.problem,
                            workload.m, candidate.schedule);
  };
  EXPECT_EQ(plan(geglu).grid, plan(twice).grid);
  EXPECT_EQ(plan(geglu).partial_bytes, plan(twice).partial_bytes);
}

TEST(Cost, IsNeverBelowTheFloorOfItsOwnRates) {
  const MmaPipe family;
  for (const char* alias : {"a40", "h200"}) {
    const DeviceInfo device = gpu(alias);
    const Rates rates = assumed_rates(device);
    for (const Workload& workload : pi05_workloads()) {
      const Space space = family.space(workload, device, kWorkspace);
      const double floor = floor_us(workload, rates.dram_gbps, rates.mma_tflops);
      for (const Point& point : space.enumerate().points) {
        const double cost =
            family.cost(candidate_at(family, space, point), workload, device).total_us;
        ASSERT_GE(cost, floor) << alias << " " << to_string(workload);
      }
    }
  }
}

TEST(Cost, FloorTakesTheLargerOfBytesAndOperations) {
  const Workload small{{Op::kGemm, 16384, 2048, 128, Dtype::kF16}, 1};
  const Workload large{{Op::kGemm, 16384, 2048, 128, Dtype::kF16}, 968};
  // 16384 * 2048 / 2 bytes of weights, 1/64 of that in scales, x and y; at 696 GB/s.
  EXPECT_NEAR(floor_us(small, 696.0, 149.7), (16777216.0 + 524288.0 + 2.0 * 18432.0) / 696e3, 1e-9);
  EXPECT_NEAR(floor_us(large, 696.0, 149.7), 2.0 * 968.0 * 16384.0 * 2048.0 / 149.7e6, 1e-9);
}

TEST(Registry, EveryFamilyIsFoundByItsId) {
  for (const Family* family : families()) EXPECT_EQ(find_family(family->id()), family);
  EXPECT_EQ(find_family("no_such_family"), nullptr);
}

TEST(DeviceSources, HeadersIncludeNothingFromTheToolkit) {
  const DeviceSources sources = device_sources_from("");
  ASSERT_FALSE(sources.headers.empty());
  std::vector<std::string> names;
  for (const Header& header : sources.headers) names.push_back(header.name);
  for (const Header& header : sources.headers) {
    EXPECT_EQ(header.text.find("#include <"), std::string::npos) << header.name;
    for (std::size_t at = header.text.find("#include \""); at != std::string::npos;
         at = header.text.find("#include \"", at + 1)) {
      const std::size_t begin = at + 10;
      const std::string name = header.text.substr(begin, header.text.find('"', begin) - begin);
      EXPECT_NE(std::find(names.begin(), names.end(), name), names.end()) << name;
    }
  }
  EXPECT_FALSE(sources.utilities.empty());
}

}  // namespace
}  // namespace w4tune

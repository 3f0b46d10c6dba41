// What holds for every family: its spaces, its points, its sources, its refusals; and the cost
// model.
#include "templates/family.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <initializer_list>
#include <limits>

#include "templates/cost.h"
#include "tests/core/sample_calibration.h"
#include "tests/templates/configs.h"

namespace w4tune {
namespace {

constexpr std::size_t kWorkspace = std::size_t{64} << 20;
constexpr int kMostThreads = 1024;            // of a block, on every GPU
constexpr std::size_t kMostCounters = 65536;  // of a GpuSession
constexpr std::size_t kStride = 11;           // between the points of a space that are looked at

DeviceInfo gpu(std::string_view alias) { return find_known_device(alias)->info; }

std::vector<Problem> pi05_problems() {
  std::vector<Problem> problems;
  for (const auto& [n, k] : {std::pair{16384, 2048}, {2048, 16384}, {4096, 1024}, {1024, 4096}}) {
    problems.push_back({Op::kGemm, n, k, 128, Dtype::kF16});
    if (n > k) problems.push_back({Op::kGeglu, n, k, 128, Dtype::kF16});
  }
  return problems;
}

// mma_reg leaves many tokens to the others, and on a GPU with 99 KB of shared memory also some
// tokens of a great depth; gemv is for a few tokens, wgmma for many; mma_pipe and mma_tile share
// the rest, and between 32 and 64 tokens mma_tile has something for some weights.
bool is_left_to_others(const Family& family, const DeviceInfo& device, const Workload& workload) {
  if (family.id() == "gemv") return workload.m > 8;
  if (family.id() == "mma_pipe") return workload.m > 128;
  if (family.id() == "mma_tile" || family.id() == "wgmma") return workload.m <= 64;
  const int most = device.sm == 86 && workload.problem.k > 8192 ? 32 : 64;
  return family.id() == "mma_reg" && workload.m > most;
}

// Calls visit(family, device, workload, space) for what each family is searched for at these M.
template <class Visit>
void for_every_space(std::initializer_list<int> ms, Visit visit) {
  for (const char* alias : {"a40", "a100", "h200"}) {
    const DeviceInfo device = gpu(alias);
    for (const Family* family : families()) {
      for (const Problem& problem : pi05_problems()) {
        if (!family->why_not(problem, device).empty()) continue;
        for (const int m : ms) {
          const Workload workload{problem, m};
          if (is_left_to_others(*family, device, workload)) continue;
          SCOPED_TRACE(std::string(family->id()) + " " + alias + " " + to_string(workload));
          visit(*family, device, workload, family->space(workload, device, kWorkspace));
          if (testing::Test::HasFatalFailure()) return;
        }
      }
    }
  }
}

TEST(Families, EverySpaceOfThePlanHasCandidatesWithinTheDeviceLimits) {
  for_every_space(
      {1, 8, 10, 16, 32, 50, 64, 128, 968}, [](const Family& family, const DeviceInfo& device,
                                               const Workload& workload, const Space& space) {
        const std::vector<Point> points = space.enumerate().points;
        ASSERT_FALSE(points.empty());
        for (std::size_t i = 0; i < points.size(); i += kStride) {
          const Candidate candidate = candidate_at(family, space, points[i]);
          ASSERT_TRUE(fits(candidate.config, workload.problem, device))
              << to_string(candidate.config);
          const Footprint footprint = family.footprint(candidate.config, workload.problem);
          ASSERT_LE(footprint.threads, kMostThreads);
          const LaunchPlan plan =
              make_launch_plan(footprint, workload.problem, workload.m, candidate.schedule);
          ASSERT_LE(plan.partial_bytes, kWorkspace);
          ASSERT_LE(plan.counter_count, kMostCounters);
          ASSERT_LE(plan.cluster, 8U);
          ASSERT_EQ(plan.schedule.split_k, candidate.schedule.split_k) << "never clamped";
        }
      });
}

TEST(Families, ConstraintsNameWhatTheyRejectAndAddUp) {
  const Workload workload{{Op::kGemm, 4096, 1024, 128, Dtype::kF16}, 10};
  for (const Family* family : families()) {
    const Enumeration all = family->space(workload, gpu("h200"), kWorkspace).enumerate();
    std::uint64_t rejected = 0;
    for (const auto& [reason, count] : all.rejected) {
      EXPECT_FALSE(reason.empty());
      rejected += count;
    }
    EXPECT_EQ(rejected + all.points.size(), all.raw_count) << family->id();
  }
}

TEST(Families, CandidatesAndPointsConvertBothWays) {
  const Workload workload{{Op::kGemm, 1024, 4096, 128, Dtype::kBF16}, 50};
  for (const Family* family : families()) {
    const Space space = family->space(workload, gpu("h200"), kWorkspace);
    for (const Point& point : space.enumerate().points) {
      const Candidate candidate = candidate_at(*family, space, point);
      ASSERT_EQ(point_of(space, candidate), point);
      ASSERT_EQ(parse_kernel_config(to_string(candidate.config)), candidate.config);
    }
  }
}

TEST(Families, RefuseTheGpusTheyCannotRunOn) {
  const Problem problem{Op::kGemm, 4096, 1024, 128, Dtype::kF16};
  const auto reason = [&](std::string_view id, int sm) {
    DeviceInfo device = gpu("a40");
    device.sm = sm;
    return find_family(id)->why_not(problem, device);
  };
  for (const char* id : {"mma_pipe", "mma_tile", "mma_reg", "gemv"}) {
    EXPECT_NE(reason(id, 75), "") << id;
    for (const int sm : {80, 86, 89, 90, 100}) EXPECT_EQ(reason(id, sm), "") << id << " " << sm;
  }
  // wgmma is of sm_90a, and of nothing newer.
  for (const char* id : {"bulk_pipe", "wgmma"}) {
    for (const int sm : {75, 80, 86, 89, 100}) EXPECT_NE(reason(id, sm), "") << id << " " << sm;
    EXPECT_EQ(reason(id, 90), "") << id;
  }
}

TEST(Families, SourceDoesNotDependOnShape) {
  for (const KernelConfig& config : corner_configs(90)) {
    const auto source = [&](int n, int k, int group) {
      return find_family(config.family)->source(config, {Op::kGemm, n, k, group, Dtype::kF16});
    };
    EXPECT_EQ(source(4096, 1024, 128), source(16384, 2048, 128)) << to_string(config);
    EXPECT_NE(source(4096, 1024, 128), source(4096, 1024, 64)) << to_string(config);
    EXPECT_EQ(source(4096, 1024, 1024), source(16384, 2048, 2048))
        << "a scale per output is the same kernel at every K";
  }
}

TEST(Families, GegluCountsTheWorkOfItsTwiceAsManyRows) {
  const Workload geglu{{Op::kGeglu, 4096, 1024, 128, Dtype::kF16}, 16};
  const Workload twice{{Op::kGemm, 8192, 1024, 128, Dtype::kF16}, 16};
  const DeviceInfo device = gpu("h200");
  for (const KernelConfig& config : corner_configs(device.sm)) {
    if (!fits(config, geglu.problem, device)) continue;
    SCOPED_TRACE(to_string(config));
    const Family& family = *find_family(config.family);
    const Candidate candidate{config, {2, 1}};
    const Cost fused = family.cost(candidate, geglu, device);
    const Cost plain = family.cost(candidate, twice, device);
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
}

// Of the rates it is predicted by; what multiplies by wgmma may pass the rate of mma.sync.
double floor_of(const Family& family, const DeviceInfo& device, const Workload& workload) {
  const Rates rates = rates_of(device);
  const double tflops = family.id() == "wgmma" ? device.mma_tflops : rates.mma_tflops;
  return floor_us(workload, rates.dram_gbps, tflops);
}

TEST(Cost, IsNeverBelowTheFloorOfItsOwnRates) {
  for_every_space({1, 50, 968}, [](const Family& family, const DeviceInfo& device,
                                   const Workload& workload, const Space& space) {
    const double floor = floor_of(family, device, workload);
    const std::vector<Point> points = space.enumerate().points;
    for (std::size_t i = 0; i < points.size(); i += kStride) {
      const Candidate candidate = candidate_at(family, space, points[i]);
      ASSERT_GE(family.cost(candidate, workload, device).total_us, floor);
    }
  });
}

struct Sample {
  const Family* family;
  Candidate candidate;
  Workload workload;
};

// Candidates of every family for an H200.
const std::vector<Sample>& h200_samples() {
  static const std::vector<Sample> samples = [] {
    const DeviceInfo device = gpu("h200");
    std::vector<Sample> found;
    for (const Problem& problem : {Problem{Op::kGemm, 2048, 16384, 128, Dtype::kF16},
                                   {Op::kGeglu, 4096, 1024, 128, Dtype::kF16}}) {
      for (const Family* family : families()) {
        for (const int m : {1, 50, 968}) {
          const Workload workload{problem, m};
          if (is_left_to_others(*family, device, workload)) continue;
          const Space space = family->space(workload, device, kWorkspace);
          const std::vector<Point> points = space.enumerate().points;
          for (std::size_t i = 0; i < points.size(); i += kStride) {
            found.push_back({family, candidate_at(*family, space, points[i]), workload});
          }
        }
      }
    }
    return found;
  }();
  return samples;
}

double time_us(const Sample& sample, const DeviceInfo& device) {
  return sample.family->cost(sample.candidate, sample.workload, device).total_us;
}

DeviceInfo calibrated_h200() {
  DeviceInfo device = gpu("h200");
  device.calibration = sample_calibration();
  return device;
}

TEST(CalibratedCost, IsNeverBelowTheFloorOfItsOwnRates) {
  const DeviceInfo device = calibrated_h200();
  for (const Sample& sample : h200_samples()) {
    ASSERT_GE(time_us(sample, device), floor_of(*sample.family, device, sample.workload))
        << to_string(sample.candidate);
  }
}

TEST(CalibratedCost, AGpuTwiceAsFastInAllTakesHalfTheTime) {
  const DeviceInfo device = calibrated_h200();
  DeviceInfo twice = device;
  twice.clock_mhz *= 2;
  Calibration& fast = *twice.calibration;
  for (double* rate : {&fast.copy_gbps, &fast.read_gbps, &fast.mma_tflops, &fast.mma_sync_tflops,
                       &fast.reduce_sm_gbps}) {
    *rate *= 2.0;
  }
  for (double* time : {&fast.launch_us, &fast.dependent_launch_us, &fast.reduce_us}) *time *= 0.5;
  for (ReadPoint& point : fast.read_curve) point.gbps *= 2.0;
  for (const Sample& sample : h200_samples()) {
    const double before = time_us(sample, device);
    ASSERT_NEAR(time_us(sample, twice), 0.5 * before, 1e-9 * before) << to_string(sample.candidate);
  }
}

TEST(CalibratedCost, EachBetterFigureHelpsAndNoneHurts) {
  const DeviceInfo device = calibrated_h200();
  const std::vector<std::function<void(Calibration&)>> improvements = {
      [](Calibration& c) {
        c.read_gbps *= 1.5;
        for (ReadPoint& point : c.read_curve) point.gbps *= 1.5;
      },
      [](Calibration& c) { c.mma_sync_tflops *= 1.5; },
      [](Calibration& c) { c.launch_us *= 0.5; },
      [](Calibration& c) { c.reduce_us *= 0.5; },
      [](Calibration& c) { c.reduce_sm_gbps *= 2.0; },
  };
  for (std::size_t i = 0; i < improvements.size(); ++i) {
    SCOPED_TRACE(i);
    DeviceInfo better = device;
    improvements[i](*better.calibration);
    bool helped = false;
    for (const Sample& sample : h200_samples()) {
      const double before = time_us(sample, device);
      const double after = time_us(sample, better);
      ASSERT_LE(after, before * (1.0 + 1e-12)) << to_string(sample.candidate);
      helped = helped || after < 0.99 * before;
    }
    EXPECT_TRUE(helped);
  }
}

TEST(CalibratedCost, MoreBytesUnderWayAreNeverSlower) {
  const DeviceInfo device = calibrated_h200();
  Work work;
  work.plan.grid = 132;
  work.plan.threads = 256;
  work.plan.smem_bytes = 64 << 10;
  work.registers = 64;
  work.dram_bytes = 17.3e6;
  double last = std::numeric_limits<double>::infinity();
  for (double bytes = 1024.0; bytes <= 128.0 * 1024.0; bytes *= 1.3) {
    work.in_flight_bytes = bytes;
    const double dram_us = predict(work, device, rates_of(device)).dram_us;
    EXPECT_LE(dram_us, last) << bytes;
    last = dram_us;
  }
  EXPECT_NEAR(last, 17.3e6 / 4500e3, 1e-9) << "the end of the curve";
  work.in_flight_bytes = 4096.0;
  EXPECT_NEAR(predict(work, device, rates_of(device)).dram_us, 17.3e6 / 1340e3, 1e-9)
      << "a point of it";
}

TEST(CalibratedCost, ASplitCostsWhatWasMeasured) {
  const DeviceInfo device = calibrated_h200();
  Work work;
  work.plan.grid = 128;
  work.plan.threads = 256;
  work.plan.schedule.split_k = 4;
  work.plan.partial_bytes = std::size_t{128} * 32768;
  work.registers = 64;
  work.dram_bytes = 17.3e6;
  work.in_flight_bytes = 32768.0;
  // The last of four reads 4 x 32 KB, at 60 GB/s.
  EXPECT_NEAR(predict(work, device, rates_of(device)).reduce_us, 1.6 + 131072.0 / 60e3, 1e-9);
}

TEST(Rates, AreAssumedWithoutACalibrationAndSayWhatWasMeasuredWithOne) {
  const DeviceInfo plain = gpu("h200");
  const auto assumed = describe(rates_of(plain), plain);
  EXPECT_EQ(assumed[0], "DRAM 4272 GB/s, 89 % of the data sheet's 4800; 0.8 us a dependent read");
  const DeviceInfo device = calibrated_h200();
  const auto measured = describe(rates_of(device), device);
  EXPECT_EQ(measured[0], "DRAM 4500 GB/s, 94 % of the data sheet's 4800; 0.6 us a dependent read");
  ASSERT_EQ(measured.size(), assumed.size() + 1);
  EXPECT_EQ(measured.back(),
            "measured on 2026-11-25T12:00:00Z: DRAM, tensor cores, 0.6 us of the launch, split "
            "reduction");
}

// The A40 was never probed: its figures are what they were.
TEST(Rates, OfAnA40AreTheAssumedOnes) {
  const Rates rates = rates_of(gpu("a40"));
  EXPECT_DOUBLE_EQ(rates.dram_gbps, 696.0 * 0.89);
  EXPECT_DOUBLE_EQ(rates.mma_tflops, 149.7 * 0.90);
  EXPECT_DOUBLE_EQ(rates.launch_us, 2.0);
  EXPECT_DOUBLE_EQ(rates.reduce_us, 1.5);
  EXPECT_DOUBLE_EQ(rates.cluster_us, 1.5);
  EXPECT_DOUBLE_EQ(rates.reduce_sm_gbps, 24.0 * 1.740);
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

// Kernels on the GPU that is here: every corner of every family against the double-precision
// reference, at ragged M, on hostile data; and the reference itself against the CPU.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <set>
#include <thread>
#include <utility>

#include "core/half.h"
#include "core/weight_layout.h"
#include "gpu/device.h"
#include "gpu/driver.h"
#include "tests/runtime/reference.h"
#include "tests/templates/configs.h"
#include "tuner/compiler.h"
#include "tuner/gpu_session.h"
#include "tuner/probe.h"

namespace w4tune {
namespace {

constexpr std::size_t kWorkspace = std::size_t{64} << 20;

Protocol warm() {
  Protocol protocol;
  protocol.cold_factor = 0.0;  // correctness needs no copies
  return protocol;
}

class Kernels : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    if (device_count() == 0) return;
    device_ = new DeviceInfo(query_device(0));
    const int threads = static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
    compiler_ = new Compiler(arch_name(device_->sm), "", threads, nullptr);
    gpu_ = new GpuSession(0, kWorkspace, compiler_->utilities().cubin);
    device_->mma_denormals = probe_mma_denormals(gpu_->utilities(), gpu_->stream());
  }
  static void TearDownTestSuite() {
    delete gpu_;
    delete compiler_;
    delete device_;
    gpu_ = nullptr;
    compiler_ = nullptr;
    device_ = nullptr;
  }
  void SetUp() override {
    if (gpu_ == nullptr) GTEST_SKIP() << no_device_reason();
  }

  const LoadedKernel& load(const KernelConfig& config, const Problem& problem) {
    const Compilation& compilation = compiler_->get(config, problem);
    EXPECT_TRUE(compilation.ok()) << compilation.log;
    return gpu_->load(compilation, footprint(config, problem));
  }

  static Footprint footprint(const KernelConfig& config, const Problem& problem) {
    return find_family(config.family)->footprint(config, problem);
  }

  // The corners that can compute the problem here.
  static std::vector<KernelConfig> corners(const Problem& problem) {
    std::vector<KernelConfig> configs = corner_configs(device_->sm);
    std::erase_if(configs,
                  [&](const KernelConfig& config) { return !fits(config, problem, *device_); });
    return configs;
  }

  // The first m rows of y, when all that was launched is done.
  static std::vector<std::uint16_t> output(const Operands& operands, int m) {
    gpu_->stream().synchronize();
    std::vector<std::uint16_t> y(static_cast<std::size_t>(m) *
                                 static_cast<std::size_t>(operands.problem().n));
    check(driver().memcpy_dtoh(y.data(), reinterpret_cast<CUdeviceptr>(operands.y()), y.size() * 2),
          "cuMemcpyDtoH");
    return y;
  }

  static inline DeviceInfo* device_ = nullptr;
  static inline Compiler* compiler_ = nullptr;
  static inline GpuSession* gpu_ = nullptr;
};

constexpr std::array kProblemsOfCpu = {
    Problem{Op::kGemm, 48, 512, 128, Dtype::kF16},
    Problem{Op::kGemm, 48, 512, 128, Dtype::kBF16},
    Problem{Op::kGeglu, 48, 512, 128, Dtype::kF16},
    Problem{Op::kGeglu, 48, 512, 128, Dtype::kBF16},
};

TEST_F(Kernels, AgreeWithTheCpuOnASmallProblem) {
  for (const Problem& problem : kProblemsOfCpu) {
    const int m = 19;
    const Operands operands(problem, m, 0, warm());
    const samples::Reference expected =
        samples::reference(problem, random_operands(problem, m, warm().seed), m);
    for (const KernelConfig& config : corners(problem)) {
      SCOPED_TRACE(to_string(config) + " " + to_string(problem));
      operands.poison_y();
      gpu_->reset_counters();
      gpu_->launch_gemm(load(config, problem), problem, {2, 1}, operands.args(m, 0),
                        gpu_->stream().handle());
      ASSERT_LE(samples::worst_ratio(problem, expected, output(operands, m), m, 48), 1.0);
    }
  }
}

// Large gates of both signs: GELU is 0 or the gate itself there, and never NaN.
TEST_F(Kernels, GegluSaturatesLikeItsDefinition) {
  const Problem problem{Op::kGeglu, 64, 512, 128, Dtype::kBF16};
  const int m = 16;
  // Outliers of thirty times, through a scale of thirty times.
  HostOperands host = random_operands(problem, m, 5, DataKind::kOutliers);
  for (std::uint16_t& scale : host.scales) {
    scale = from_float(problem.dtype, 30.0F * to_float(problem.dtype, scale));
  }
  const samples::Reference expected = samples::reference(problem, host, m);
  std::vector<std::uint32_t> packed(weight_bytes(problem) / 4);
  std::vector<std::uint16_t> packed_scales(scale_bytes(problem) / 2);
  pack_weight(problem, host.nibbles.data(), NibbleEncoding::kOffset8, host.scales.data(),
              packed.data(), packed_scales.data());
  Buffer w(packed.size() * 4);
  w.upload(packed.data(), w.size_bytes());
  Buffer scales(packed_scales.size() * 2);
  scales.upload(packed_scales.data(), scales.size_bytes());
  Buffer x(host.x.size() * 2);
  x.upload(host.x.data(), x.size_bytes());
  const Operands shape(problem, m, 0, warm());
  w4::GemmArgs args = shape.args(m, 0);
  args.w = w.as<void>();
  args.scales = scales.as<void>();
  args.x = x.as<void>();
  for (const KernelConfig& config : corners(problem)) {
    shape.poison_y();
    gpu_->reset_counters();
    gpu_->launch_gemm(load(config, problem), problem, {2, 1}, args, gpu_->stream().handle());
    ASSERT_LE(samples::worst_ratio(problem, expected, output(shape, m), m, 64), 1.0)
        << to_string(config);
  }
}

TEST_F(Kernels, EveryCornerIsWithinTheBoundsAtRaggedM) {
  for (const auto& [op, dtype] :
       {std::pair{Op::kGemm, Dtype::kF16}, {Op::kGemm, Dtype::kBF16}, {Op::kGeglu, Dtype::kF16}}) {
    for (const int group : {32, 64, 128, 1024}) {
      // 720 rows: no multiple of any row tile but 16 (and of geglu's 1440, of 32).
      const Problem problem{op, 720, 1024, group, dtype};
      const Operands operands(problem, 300, 0, warm());
      const Verifier verifier(gpu_->utilities(), operands, gpu_->stream());
      for (const KernelConfig& config : corners(problem)) compiler_->announce(config, problem);
      for (const KernelConfig& config : corners(problem)) {
        const LoadedKernel& kernel = load(config, problem);
        for (const int split : {1, 2, kernel.footprint.cluster_split ? 4 : 5}) {
          for (const int raster : {1, 4}) {
            for (const int m : {1, 2, 7, 8, 9, 15, 17, 31, 63, 65, 127, 129, 299}) {
              const ErrorMetrics error =
                  gpu_->check(kernel, {config, {split, raster}}, operands, verifier, m);
              ASSERT_LE(error.worst_ratio, 1.0)
                  << to_string(config) << " " << to_string(problem) << " m=" << m
                  << " split=" << split << " raster=" << raster;
            }
          }
        }
      }
    }
  }
}

// Where tiles of many tokens begin and end, and every M between the families for few and for many.
TEST_F(Kernels, ManyTokensAreWithinTheBoundsAtEveryM) {
  const Problem problem{Op::kGemm, 720, 1024, 128, Dtype::kF16};
  constexpr int kMaxM = 520;
  const Operands operands(problem, kMaxM, 0, warm());
  const Verifier verifier(gpu_->utilities(), operands, gpu_->stream());
  int kernels = 0;
  for (const KernelConfig& config : corners(problem)) {
    if (config.family != "mma_tile" && config.family != "wgmma") continue;
    ++kernels;
    const LoadedKernel& kernel = load(config, problem);
    std::set<int> ms;
    for (int m = 60; m <= 140; ++m) ms.insert(m);
    for (const int tiles : {1, 2}) {
      const int edge = tiles * kernel.footprint.token_tile;
      for (const int m : {edge - 1, edge, edge + 1}) ms.insert(std::min(m, kMaxM));
    }
    for (const int split : {1, 3}) {
      for (const int m : ms) {
        const ErrorMetrics error = gpu_->check(kernel, {config, {split, 1}}, operands, verifier, m);
        ASSERT_LE(error.worst_ratio, 1.0) << to_string(config) << " m=" << m << " split=" << split;
      }
    }
  }
  EXPECT_GT(kernels, 0);
}

TEST_F(Kernels, HostileDataStaysWithinTheBounds) {
  for (const auto& [op, dtype] :
       {std::pair{Op::kGemm, Dtype::kF16}, {Op::kGemm, Dtype::kBF16}, {Op::kGeglu, Dtype::kF16}}) {
    const Problem problem{op, op == Op::kGeglu ? 128 : 256, 16384, 128, dtype};
    for (const DataKind kind : {DataKind::kPlain, DataKind::kPositiveMean, DataKind::kOutliers,
                                DataKind::kAllMinus8, DataKind::kZeroScales}) {
      const Operands operands(problem, 50, 0, warm(), kind);
      const Verifier verifier(gpu_->utilities(), operands, gpu_->stream());
      for (const KernelConfig& config : corners(problem)) {
        for (const int split : {1, 8}) {
          const ErrorMetrics error =
              gpu_->check(load(config, problem), {config, {split, 1}}, operands, verifier, 50);
          ASSERT_LE(error.worst_ratio, 1.0)
              << to_string(config) << " " << to_string(problem) << " data "
              << static_cast<int>(kind) << " split " << split;
        }
      }
    }
  }
}

TEST_F(Kernels, SplitResultsAreBitIdenticalOverRepeats) {
  for (const Op op : {Op::kGemm, Op::kGeglu}) {
    const Problem problem{op, 1024, 4096, 128, Dtype::kF16};
    const int m = 16;
    const Operands operands(problem, m, 0, warm());
    for (const KernelConfig& config : corners(problem)) {
      std::vector<std::uint16_t> first;
      gpu_->reset_counters();
      for (int repeat = 0; repeat < 100; ++repeat) {
        operands.poison_y();
        gpu_->launch_gemm(load(config, problem), problem, {8, 1}, operands.args(m, 0),
                          gpu_->stream().handle());
        const std::vector<std::uint16_t> y = output(operands, m);
        if (repeat == 0) first = y;
        ASSERT_EQ(y, first) << to_string(config) << " repeat " << repeat;
      }
    }
  }
}

// Three launches, each reading what the one before it wrote.
TEST_F(Kernels, ADependentLaunchSeesWhatTheOneBeforeWrote) {
  if (device_->sm < 90) GTEST_SKIP() << "dependent launches need compute capability 9.0";
  const Problem problem{Op::kGemm, 1024, 1024, 128, Dtype::kF16};
  const int m = 16;
  const Operands operands(problem, m, 0, warm());
  const Buffer between(static_cast<std::size_t>(m) * 1024 * 2);
  for (const KernelConfig& config : corners(problem)) {
    if (!footprint(config, problem).dependent) continue;
    for (const int split : {1, 4}) {
      const auto chain = [&](bool dependent) {
        const w4::GemmArgs first = operands.args(m, 0);
        w4::GemmArgs second = first;
        second.x = first.y;
        second.y = between.as<void>();
        w4::GemmArgs third = first;
        third.x = second.y;
        operands.poison_y();
        gpu_->reset_counters();
        for (const w4::GemmArgs& args : {first, second, third}) {
          gpu_->launch_gemm(load(config, problem), problem, {split, 1}, args,
                            gpu_->stream().handle(), dependent);
        }
        return output(operands, m);
      };
      const std::vector<std::uint16_t> expected = chain(false);
      for (int repeat = 0; repeat < 20; ++repeat) {
        ASSERT_EQ(chain(true), expected) << to_string(config) << " split " << split;
      }
    }
  }
}

// What the H200 was seen to do; another GPU is only asked for a clear answer.
TEST_F(Kernels, TheProbeOfDenormalsAnswersTheSameEveryTime) {
  for (int i = 0; i < 10; ++i) {
    EXPECT_EQ(probe_mma_denormals(gpu_->utilities(), gpu_->stream()), *device_->mma_denormals);
  }
  if (device_->sm == 90) {
    EXPECT_TRUE(*device_->mma_denormals);
  }
}

TEST_F(Kernels, TheVerifierRejectsWrongResults) {
  for (const Op op : {Op::kGemm, Op::kGeglu}) {
    const Problem problem{op, 256, 1024, 128, Dtype::kF16};
    const int m = 16;
    const Operands operands(problem, m, 0, warm());
    const Verifier verifier(gpu_->utilities(), operands, gpu_->stream());
    const KernelConfig config = ordinary_config();
    const auto poke = [&](const std::uint16_t* at, std::uint16_t value) {
      check(driver().memcpy_htod(reinterpret_cast<CUdeviceptr>(at), &value, sizeof(value)),
            "cuMemcpyHtoD");
    };
    ASSERT_LE(
        gpu_->check(load(config, problem), {config, {1, 1}}, operands, verifier, m).worst_ratio,
        1.0);
    const std::vector<std::uint16_t> y = output(operands, m);
    // An element above 1/4: 32 ulp of it are far outside the bound.
    const auto large =
        std::find_if(y.begin(), y.end(), [](int bits) { return (bits & 0x7fff) > 0x3400; });
    ASSERT_NE(large, y.end());
    const std::uint16_t* const at = operands.y() + (large - y.begin());
    poke(at, static_cast<std::uint16_t>(*large ^ 0x20));
    EXPECT_GT(verifier.judge(m, 1).worst_ratio, 1.0);
    poke(at, 0x7e00);  // NaN
    EXPECT_GT(verifier.judge(m, 1).worst_ratio, 1.0);
    poke(at, *large);
    EXPECT_LE(verifier.judge(m, 1).worst_ratio, 1.0);
    poke(operands.fence_after() + 5, 0);
    EXPECT_GT(verifier.judge(m, 1).worst_ratio, 1.0) << "a write behind the output";
    poke(operands.fence_after() + 5, Operands::kCanary);
    poke(operands.fence_before() + 5, 0);
    EXPECT_GT(verifier.judge(m, 1).worst_ratio, 1.0) << "a write before the output";
  }
}

TEST_F(Kernels, PackingOnTheGpuEqualsPackingOnTheCpu) {
  for (const Op op : {Op::kGemm, Op::kGeglu}) {
    const Problem problem{op, 96, 256, 64, Dtype::kF16};
    const HostOperands host = random_operands(problem, 1, 3);
    std::vector<std::uint32_t> expected(weight_bytes(problem) / 4);
    std::vector<std::uint16_t> expected_scales(scale_bytes(problem) / 2);
    pack_weight(problem, host.nibbles.data(), NibbleEncoding::kSigned, host.scales.data(),
                expected.data(), expected_scales.data());
    Buffer nibbles(host.nibbles.size());
    nibbles.upload(host.nibbles.data(), host.nibbles.size());
    Buffer scales(host.scales.size() * 2);
    scales.upload(host.scales.data(), host.scales.size() * 2);
    const Buffer packed(weight_bytes(problem));
    const Buffer packed_scales(scale_bytes(problem));
    auto* nibbles_at = nibbles.as<void>();
    auto* scales_at = scales.as<void>();
    auto* packed_at = packed.as<void>();
    auto* packed_scales_at = packed_scales.as<void>();
    int rows = weight_rows(problem);
    int n = problem.n;
    int k = problem.k;
    int groups = num_groups(problem);
    int geglu = op == Op::kGeglu ? 1 : 0;
    std::uint32_t flip = 8;
    void* params[] = {&nibbles_at, &scales_at, &packed_at, &packed_scales_at, &rows, &n, &k,
                      &groups,     &geglu,     &flip};
    launch(gpu_->utilities().function("w4_pack_weight"), 8, 256, 0, gpu_->stream().handle(),
           params);
    gpu_->stream().synchronize();
    std::vector<std::uint32_t> got(expected.size());
    packed.download(got.data(), got.size() * 4);
    std::vector<std::uint16_t> got_scales(expected_scales.size());
    packed_scales.download(got_scales.data(), got_scales.size() * 2);
    EXPECT_EQ(got, expected);
    EXPECT_EQ(got_scales, expected_scales);
  }
}

}  // namespace
}  // namespace w4tune

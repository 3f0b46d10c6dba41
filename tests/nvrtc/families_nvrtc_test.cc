// Every corner of every family compiles for every architecture it is meant for, without spills and
// within the limits of the GPUs there; no GPU needed.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <array>

#include "core/device_info.h"
#include "gpu/nvrtc.h"
#include "templates/family.h"
#include "templates/wgmma_text.h"
#include "tests/templates/configs.h"

namespace w4tune {
namespace {

struct Target {
  const char* family;
  const char* arch;
  const char* gpu;  // with the least shared memory of this architecture
};

class Compiles : public testing::TestWithParam<Target> {};

// What ptxas remarks, as C7510 to C7515, where it makes each wgmma wait for the one before.
constexpr const char* kSerialized = "are serialized";

// The `index`-th of all problems that differ in their source, or one after it that fits.
Problem problem_for(const KernelConfig& config, int index, const DeviceInfo& device) {
  constexpr int kDepth = 4096;
  constexpr std::array kGroups = {128, 32, kDepth, 64};
  const Op op = index % 2 == 0 ? Op::kGemm : Op::kGeglu;
  const bool by_denormals = config.at("dequant") >= 2;  // FP16 alone has them
  const Dtype dtype = index % 3 == 1 && !by_denormals ? Dtype::kBF16 : Dtype::kF16;
  for (std::size_t i = 0; i < kGroups.size(); ++i) {
    const int group = kGroups[(static_cast<std::size_t>(index) / 2 + i) % kGroups.size()];
    const Problem problem{op, 16384, kDepth, group, dtype};
    if (fits(config, problem, device)) return problem;
  }
  ADD_FAILURE() << "computes nothing: " << to_string(config);
  return {op, 16384, kDepth, 128, dtype};
}

TEST_P(Compiles, EveryCornerWithoutSpills) {
  const DeviceSources sources = device_sources_from("");
  DeviceInfo device = find_known_device(GetParam().gpu)->info;
  device.mma_denormals = true;
  int index = 0;
  const Family& family = *find_family(GetParam().family);
  for (const KernelConfig& config : corner_configs(device.sm)) {
    if (config.family != family.id()) continue;
    for (int op = 0; op < 2; ++op) {
      const Problem problem = problem_for(config, index++, device);
      SCOPED_TRACE(to_string(config) + " " + to_string(problem));
      const Compilation compilation =
          Nvrtc::get().compile(family.source(config, problem), sources.headers, GetParam().arch);
      ASSERT_TRUE(compilation.ok()) << compilation.log;
      EXPECT_EQ(compilation.spill_bytes, 0);
      EXPECT_GT(compilation.registers, 0);
      EXPECT_LE(compilation.registers, 255);
      EXPECT_EQ(compilation.log.find(kSerialized), std::string::npos) << compilation.log;
    }
  }
  EXPECT_GT(index, 0) << "no corners";
}

INSTANTIATE_TEST_SUITE_P(
    Architectures, Compiles,
    testing::Values(Target{"mma_pipe", "sm_80", "a100"}, Target{"mma_pipe", "sm_86", "a40"},
                    Target{"mma_pipe", "sm_90a", "h200"}, Target{"mma_tile", "sm_86", "a40"},
                    Target{"mma_tile", "sm_90a", "h200"}, Target{"mma_reg", "sm_80", "a100"},
                    Target{"mma_reg", "sm_86", "a40"}, Target{"mma_reg", "sm_90a", "h200"},
                    Target{"gemv", "sm_80", "a100"}, Target{"gemv", "sm_86", "a40"},
                    Target{"gemv", "sm_89", "l40s"}, Target{"gemv", "sm_90a", "h200"},
                    Target{"bulk_pipe", "sm_90a", "h200"}, Target{"wgmma", "sm_90a", "h200"}),
    [](const auto& test) { return fmt::format("{}_{}", test.param.family, test.param.arch); });

// What is likely to win at one token, at the registers that its occupancy leaves.
TEST(Gemv, FavouritesOfOneTokenCompileWithoutSpills) {
  const Family& family = *find_family("gemv");
  const DeviceSources sources = device_sources_from("");
  const Problem problem{Op::kGemm, 16384, 2048, 128, Dtype::kF16};
  for (const char* arch : {"sm_86", "sm_90a"}) {
    for (const char* config : {
             "gemv row_tile=64 token_tile=1 depth_warps=8 blocks=4 ahead=4 ctas=2 dequant=2",
             "gemv row_tile=64 token_tile=1 depth_warps=8 blocks=4 ahead=2 ctas=2 dequant=2",
             "gemv row_tile=16 token_tile=1 depth_warps=16 blocks=8 ahead=8 ctas=1 dequant=2",
             "gemv row_tile=32 token_tile=1 depth_warps=8 blocks=2 ahead=2 ctas=4 dequant=2",
             "gemv row_tile=16 token_tile=1 depth_warps=8 blocks=4 ahead=4 ctas=2 dequant=2",
         }) {
      SCOPED_TRACE(fmt::format("{} {}", config, arch));
      const Compilation compilation = Nvrtc::get().compile(
          family.source(parse_kernel_config(config), problem), sources.headers, arch);
      ASSERT_TRUE(compilation.ok()) << compilation.log;
      EXPECT_EQ(compilation.spill_bytes, 0);
    }
  }
}

// Otherwise the tests above would find nothing, whatever the compiler says.
TEST(Ptxas, RemarksOnAWgmmaThatItSerializes) {
  const std::string source = "#include \"ptx_sm90.cuh\"\n" + wgmma_text(8, Dtype::kF16) + R"(
extern "C" __global__ void w4_kernel(float* out, w4::u64 tokens) {
  float d[4] = {out[0], out[1], out[2], out[3]};
  const w4::u32 a[4] = {1, 2, 3, 4};
  w4::wgmma_fence();
  w4::Wgmma<w4::F16, 8>::multiply(d, a, tokens, 1);
  d[0] *= out[4];  // while it is under way
  w4::Wgmma<w4::F16, 8>::multiply(d, a, tokens, 1);
  w4::wgmma_commit();
  w4::wgmma_wait<0>();
  out[5] = d[0] + d[1] + d[2] + d[3];
}
)";
  const Compilation compilation =
      Nvrtc::get().compile(source, device_sources_from("").headers, "sm_90a");
  ASSERT_TRUE(compilation.ok()) << compilation.log;
  EXPECT_NE(compilation.log.find(kSerialized), std::string::npos) << compilation.log;
}

TEST(Utilities, CompileForEveryArchitecture) {
  const DeviceSources sources = device_sources_from("");
  for (const char* arch : {"sm_80", "sm_86", "sm_90a"}) {
    const Compilation compilation = Nvrtc::get().compile(sources.utilities, sources.headers, arch);
    EXPECT_TRUE(compilation.ok()) << arch << ": " << compilation.log;
  }
}

// The hint reaches the code of the A40, and PTX without it has none for a newer GPU to stumble on.
TEST(Ptx, OfTheHintIsThereAndCanBeLeftOut) {
  const Family& family = *find_family("mma_pipe");
  const DeviceSources sources = device_sources_from("");
  const Problem problem{Op::kGemm, 4096, 1024, 128, Dtype::kF16};
  const auto ptx_of = [&](const KernelConfig& config) {
    return Nvrtc::get()
        .compile(family.source(config, problem), sources.headers, "compute_86")
        .cubin;
  };
  EXPECT_NE(ptx_of(hint_config()).find("L2::cache_hint"), std::string::npos);
  const std::string plain = ptx_of(family.without_hints(hint_config()));
  EXPECT_FALSE(plain.empty());
  EXPECT_EQ(plain.find("L2::cache_hint"), std::string::npos);
  EXPECT_EQ(plain.find("createpolicy"), std::string::npos);
}

TEST(Ptx, OfAnA40KernelIsMadeForAnyNewerGpu) {
  const DeviceSources sources = device_sources_from("");
  const Problem problem{Op::kGemm, 4096, 1024, 128, Dtype::kF16};
  const KernelConfig config = ordinary_config();
  const Compilation compilation = Nvrtc::get().compile(
      find_family(config.family)->source(config, problem), sources.headers, "compute_86");
  ASSERT_TRUE(compilation.ok()) << compilation.log;
  EXPECT_NE(compilation.cubin.find(".target sm_86"), std::string::npos);
}

}  // namespace
}  // namespace w4tune

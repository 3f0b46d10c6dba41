// Every corner of the family compiles for every architecture it is meant for, without spills and
// within the A40's limits; no GPU needed.
#include <gtest/gtest.h>

#include "core/device_info.h"
#include "gpu/nvrtc.h"
#include "templates/mma_pipe.h"
#include "tests/templates/configs.h"

namespace w4tune {
namespace {

class Compiles : public testing::TestWithParam<std::string> {};

TEST_P(Compiles, EveryCornerWithoutSpills) {
  const MmaPipe family;
  const DeviceSources sources = device_sources_from("");
  const std::size_t a40_limit = find_known_device("a40")->info.smem_block_bytes;
  int index = 0;
  for (const KernelConfig& config : corner_configs(GetParam() == "sm_90a" ? 90 : 80)) {
    for (const Op op : {Op::kGemm, Op::kGeglu}) {
      // Dtype and group rotate through the corners; D0 has no scale per output.
      const Dtype dtype = index % 3 == 1 ? Dtype::kBF16 : Dtype::kF16;
      int group = index % 4 == 0 ? 128 : index % 4 == 1 ? 32 : index % 4 == 2 ? 2048 : 64;
      if (config.at("dequant") == 0 && group == 2048) group = 128;
      ++index;
      const Problem problem{op, 16384, 2048, group, dtype};
      SCOPED_TRACE(to_string(config) + " " + to_string(problem));
      const Compilation compilation =
          Nvrtc::get().compile(family.source(config, problem), sources.headers, GetParam());
      ASSERT_TRUE(compilation.ok()) << compilation.log;
      EXPECT_EQ(compilation.spill_bytes, 0);
      EXPECT_GT(compilation.registers, 0);
      EXPECT_LE(compilation.registers, 255);
      EXPECT_LE(static_cast<std::size_t>(family.footprint(config, problem).smem_bytes), a40_limit);
    }
  }
}

TEST_P(Compiles, EveryDequantisationByDenormals) {
  const MmaPipe family;
  const DeviceSources sources = device_sources_from("");
  int index = 0;
  for (const KernelConfig& config : denormal_configs()) {
    for (const int group : {32, 64, 128}) {
      const Op op = ++index % 2 == 0 ? Op::kGeglu : Op::kGemm;
      const Problem problem{op, 16384, 2048, group, Dtype::kF16};
      SCOPED_TRACE(to_string(config) + " " + to_string(problem));
      const Compilation compilation =
          Nvrtc::get().compile(family.source(config, problem), sources.headers, GetParam());
      ASSERT_TRUE(compilation.ok()) << compilation.log;
      EXPECT_EQ(compilation.spill_bytes, 0);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Architectures, Compiles, testing::Values("sm_80", "sm_86", "sm_90a"),
                         [](const auto& test) { return test.param; });

TEST(Utilities, CompileForEveryArchitecture) {
  const DeviceSources sources = device_sources_from("");
  for (const char* arch : {"sm_80", "sm_86", "sm_90a"}) {
    const Compilation compilation = Nvrtc::get().compile(sources.utilities, sources.headers, arch);
    EXPECT_TRUE(compilation.ok()) << arch << ": " << compilation.log;
  }
}

// The hint reaches the code of the A40, and PTX without it has none for a newer GPU to stumble on.
TEST(Ptx, OfTheHintIsThereAndCanBeLeftOut) {
  const MmaPipe family;
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
  const MmaPipe family;
  const DeviceSources sources = device_sources_from("");
  const Problem problem{Op::kGemm, 4096, 1024, 128, Dtype::kF16};
  const Compilation compilation = Nvrtc::get().compile(family.source(corner_configs()[4], problem),
                                                       sources.headers, "compute_86");
  ASSERT_TRUE(compilation.ok()) << compilation.log;
  EXPECT_NE(compilation.cubin.find(".target sm_86"), std::string::npos);
}

}  // namespace
}  // namespace w4tune

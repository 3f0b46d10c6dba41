// NVRTC as it is on this machine. Needs the CUDA toolkit, no GPU.
#include "gpu/nvrtc.h"

#include <gtest/gtest.h>

#include <string>
#include <thread>
#include <vector>

#include "w4tune/error.h"

namespace w4tune {
namespace {

const char* const kSource = R"(#include "scale.cuh"
extern "C" __global__ void w4_kernel(float* y) {
  __shared__ float tile[32];
  tile[threadIdx.x] = scale(y[threadIdx.x]);
  __syncthreads();
  y[threadIdx.x] = tile[31 - threadIdx.x];
}
)";

const std::vector<Header> kHeaders = {
    {"scale.cuh", "#pragma once\ninline float scale(float v) { return 2.0f * v; }\n"}};

// Holds more values than the registers that 1024 threads leave to each.
const char* const kSpillingSource = R"(
extern "C" __global__ void __launch_bounds__(1024, 2) w4_kernel(const float4* x, float4* y) {
  float4 v[32];
#pragma unroll
  for (int i = 0; i < 32; ++i) v[i] = x[i * 1024 + threadIdx.x];
  __syncthreads();
#pragma unroll
  for (int i = 0; i < 32; ++i) y[i * 1024 + threadIdx.x] = v[31 - i];
}
)";

class NvrtcTest : public ::testing::Test {
 protected:
  void SetUp() override {
    try {
      nvrtc_ = &Nvrtc::get();
    } catch (const Error& error) {
      GTEST_SKIP() << error.what();
    }
  }

  const Nvrtc* nvrtc_ = nullptr;
};

TEST_F(NvrtcTest, CompilesToCubinWithResources) {
  for (const char* arch : {"sm_86", "sm_90a"}) {
    const Compilation compilation = nvrtc_->compile(kSource, kHeaders, arch);
    ASSERT_TRUE(compilation.ok()) << compilation.log;
    EXPECT_EQ(compilation.cubin.substr(0, 4),
              "\x7f"
              "ELF");
    EXPECT_EQ(compilation.arch, arch);
    EXPECT_GT(compilation.registers, 0) << compilation.log;
    EXPECT_EQ(compilation.spill_bytes, 0);
    EXPECT_GE(compilation.static_smem_bytes, 128);  // sm_90 reserves 1 KB a CTA more
  }
}

TEST_F(NvrtcTest, CompilesToPtxText) {
  const Compilation compilation = nvrtc_->compile(kSource, kHeaders, "compute_86");
  ASSERT_TRUE(compilation.ok()) << compilation.log;
  EXPECT_NE(compilation.cubin.find(".target sm_86"), std::string::npos);
  EXPECT_EQ(compilation.cubin.find('\0'), std::string::npos);
}

TEST_F(NvrtcTest, CountsSpills) {
  const Compilation compilation = nvrtc_->compile(kSpillingSource, {}, "sm_80");
  ASSERT_TRUE(compilation.ok()) << compilation.log;
  EXPECT_GT(compilation.spill_bytes, 0) << compilation.log;
}

TEST_F(NvrtcTest, FailureIsDataWithTheCompilersWords) {
  const Compilation compilation =
      nvrtc_->compile("__global__ void f() { no_such(); }", {}, "sm_86");
  EXPECT_FALSE(compilation.ok());
  EXPECT_NE(compilation.log.find("no_such"), std::string::npos) << compilation.log;
  EXPECT_FALSE(compilation.key.empty());
  EXPECT_FALSE(nvrtc_->compile(kSource, {}, "sm_86").ok());  // the header is missing
  const Compilation unknown = nvrtc_->compile(kSource, kHeaders, "sm_1");
  EXPECT_FALSE(unknown.ok());
  EXPECT_FALSE(unknown.log.empty());
}

TEST_F(NvrtcTest, KeyIsStableAndCoversEveryInput) {
  const std::string key = nvrtc_->compile_key(kSource, kHeaders, "sm_86");
  EXPECT_EQ(key, nvrtc_->compile_key(kSource, kHeaders, "sm_86"));
  EXPECT_EQ(key, nvrtc_->compile(kSource, kHeaders, "sm_86").key);
  EXPECT_EQ(key.size(), 64U);
  EXPECT_NE(key, nvrtc_->compile_key(kSource, kHeaders, "sm_80"));
  EXPECT_NE(key, nvrtc_->compile_key(kSource, {}, "sm_86"));
  EXPECT_NE(key, nvrtc_->compile_key(std::string(kSource) + "\n", kHeaders, "sm_86"));
  std::vector<Header> edited = kHeaders;
  edited[0].text += "// edited\n";
  EXPECT_NE(key, nvrtc_->compile_key(kSource, edited, "sm_86"));
}

TEST_F(NvrtcTest, TwoThreadsCompileAtOnce) {
  constexpr int kRounds = 4;
  const Compilation expected = nvrtc_->compile(kSource, kHeaders, "sm_86");
  std::vector<Compilation> results(2 * kRounds);
  std::vector<std::thread> threads;
  for (std::size_t t = 0; t < 2; ++t) {
    threads.emplace_back([&, t] {
      for (std::size_t i = 0; i < kRounds; ++i) {
        results[t * kRounds + i] = nvrtc_->compile(kSource, kHeaders, "sm_86");
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const Compilation& result : results) {
    EXPECT_EQ(result.cubin, expected.cubin);
    EXPECT_EQ(result.registers, expected.registers);
  }
}

TEST_F(NvrtcTest, VersionIsSupported) { EXPECT_GE(std::stoi(nvrtc_->version()), 12); }

}  // namespace
}  // namespace w4tune

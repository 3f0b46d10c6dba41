// cuBLASLt on a real GPU; skipped with the reason where there is none.
#include "gpu/cublaslt.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "core/half.h"
#include "gpu/buffer.h"
#include "gpu/context.h"
#include "gpu/device.h"
#include "gpu/graph.h"
#include "gpu/stream.h"

namespace w4tune {
namespace {

std::vector<std::uint16_t> random_values(std::size_t count, Dtype dtype, unsigned seed) {
  std::mt19937 generator(seed);
  std::uniform_real_distribution<float> uniform(-1.0F, 1.0F);
  std::vector<std::uint16_t> values(count);
  for (auto& value : values) value = from_float(dtype, uniform(generator));
  return values;
}

class CublasLtTest : public ::testing::TestWithParam<Dtype> {
 protected:
  void SetUp() override {
    if (!CublasLt::available()) GTEST_SKIP() << "cuBLASLt is not installed";
    if (device_count() == 0) GTEST_SKIP() << no_device_reason();
    context_ = std::make_unique<Context>(0);
  }

  std::unique_ptr<Context> context_;
};

TEST_P(CublasLtTest, EveryAlgorithmMultipliesRowMajor) {
  constexpr int kM = 24;
  constexpr int kN = 64;
  constexpr int kK = 128;
  const Dtype dtype = GetParam();
  const auto x = random_values(kM * kK, dtype, 1);
  const auto w = random_values(kN * kK, dtype, 2);
  Buffer x_buffer(x.size() * 2);
  Buffer w_buffer(w.size() * 2);
  Buffer y_buffer(kM * kN * 2);
  x_buffer.upload(x.data(), x_buffer.size_bytes());
  w_buffer.upload(w.data(), w_buffer.size_bytes());

  const Stream stream;
  const CublasLtGemm gemm({.m = kM, .n = kN, .k = kK, .dtype = dtype});
  const Buffer workspace(CublasLtProduct::kDefaultWorkspaceBytes);
  ASSERT_GE(gemm.size(), 1);
  for (int algorithm = 0; algorithm < gemm.size(); ++algorithm) {
    SCOPED_TRACE(gemm.describe(algorithm));
    y_buffer.fill(0xFF);  // NaN
    const Graph graph = Graph::capture(stream.handle(), [&] {
      gemm.run(algorithm, x_buffer.as<void>(), w_buffer.as<void>(), y_buffer.as<void>(),
               workspace.as<void>(), stream.handle());
    });
    graph.launch(stream.handle());
    stream.synchronize();
    std::vector<std::uint16_t> y(kM * kN);
    y_buffer.download(y.data(), y_buffer.size_bytes());
    for (std::size_t i = 0; i < y.size(); ++i) {
      double expected = 0.0;
      for (std::size_t k = 0; k < kK; ++k) {
        expected += static_cast<double>(to_float(dtype, x[i / kN * kK + k])) *
                    static_cast<double>(to_float(dtype, w[i % kN * kK + k]));
      }
      const double bound = 4.0 * unit_roundoff(dtype) * (1.0 + std::abs(expected));
      ASSERT_NEAR(static_cast<double>(to_float(dtype, y[i])), expected, bound) << "element " << i;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Dtypes, CublasLtTest, ::testing::Values(Dtype::kF16, Dtype::kBF16));

}  // namespace
}  // namespace w4tune

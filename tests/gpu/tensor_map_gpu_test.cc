// Tensor maps as the driver sees them; skipped with the reason where there is no GPU. That a map
// brings the right elements is what the kernels are tested for (tests/tuner/kernels_gpu_test.cc).
#include "gpu/tensor_map.h"

#include <gtest/gtest.h>

#include <cstddef>
#include <cstring>
#include <memory>

#include "gpu/buffer.h"
#include "gpu/context.h"
#include "gpu/device.h"
#include "w4tune/error.h"

namespace w4tune {
namespace {

class TensorMapTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (device_count() == 0) GTEST_SKIP() << no_device_reason();
    if (query_device(0).sm < 90) GTEST_SKIP() << "tensor maps need compute capability 9.0";
    context_ = std::make_unique<Context>(0);
    data_ = std::make_unique<Buffer>(std::size_t{16} * 256 * 2);
  }

  [[nodiscard]] const char* data() const { return data_->as<char>(); }

  std::unique_ptr<Context> context_;
  std::unique_ptr<Buffer> data_;
};

TEST_F(TensorMapTest, DependsOnEveryArgument) {
  const auto differ = [](const CUtensorMap& a, const CUtensorMap& b) {
    return std::memcmp(&a, &b, sizeof(a)) != 0;
  };
  const CUtensorMap map = map_matrix(data(), 16, 128, 256, 8, 64);
  EXPECT_FALSE(differ(map, map_matrix(data(), 16, 128, 256, 8, 64)));
  EXPECT_TRUE(differ(map, map_matrix(data() + 16, 16, 128, 256, 8, 64)));
  EXPECT_TRUE(differ(map, map_matrix(data(), 15, 128, 256, 8, 64)));
  EXPECT_TRUE(differ(map, map_matrix(data(), 16, 192, 256, 8, 64)));
  EXPECT_TRUE(differ(map, map_matrix(data(), 16, 128, 128, 8, 64)));
  EXPECT_TRUE(differ(map, map_matrix(data(), 16, 128, 256, 16, 64)));
  EXPECT_TRUE(differ(map, map_matrix(data(), 16, 128, 256, 8, 128)));
}

TEST_F(TensorMapTest, TheDriverRefusesWhatTheCopyEngineCannotRead) {
  EXPECT_THROW(map_matrix(data(), 16, 128, 252, 8, 64), Error) << "a stride of 504 bytes";
  EXPECT_THROW(map_matrix(data() + 2, 15, 128, 256, 8, 64), Error) << "data at 2 bytes";
  EXPECT_THROW(map_matrix(data(), 16, 128, 256, 257, 64), Error) << "a box of 257 rows";
}

}  // namespace
}  // namespace w4tune

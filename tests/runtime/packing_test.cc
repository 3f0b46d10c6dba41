#include "w4tune/packing.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <random>
#include <vector>

#include "core/half.h"
#include "core/problem.h"
#include "core/weight_layout.h"
#include "tests/cache/samples.h"
#include "tuner/operands.h"
#include "w4tune/error.h"

namespace w4tune {
namespace {

using samples::expect_error;

TEST(PackingTest, IsTheLayoutOfTheKernels) {
  for (const Op op : {Op::kGemm, Op::kGeglu}) {
    for (const auto encoding : {NibbleEncoding::kOffset8, NibbleEncoding::kSigned}) {
      const Problem problem{.op = op, .n = 32, .k = 256, .group_size = 64, .dtype = Dtype::kF16};
      std::mt19937 random(7);
      std::vector<std::uint8_t> nibbles(packed_weight_bytes(problem));
      std::vector<std::uint16_t> scales(packed_scale_bytes(problem) / 2);
      for (auto& byte : nibbles) byte = static_cast<std::uint8_t>(random());
      for (auto& scale : scales) scale = static_cast<std::uint16_t>(random());
      std::vector<std::uint32_t> weight(nibbles.size() / 4);
      std::vector<std::uint32_t> expected_weight(weight.size());
      std::vector<std::uint16_t> packed_scales(scales.size());
      std::vector<std::uint16_t> expected_scales(scales.size());
      pack_weights(problem,
                   {.nibbles = nibbles.data(), .scales = scales.data(), .encoding = encoding},
                   weight.data(), packed_scales.data());
      pack_weight(problem, nibbles.data(), encoding, scales.data(), expected_weight.data(),
                  expected_scales.data());
      EXPECT_EQ(weight, expected_weight);
      EXPECT_EQ(packed_scales, expected_scales);
    }
  }
}

// By the nibbles as they came, not by where packing puts them.
TEST(PackingTest, DequantizingGivesTheWeightBack) {
  for (const Problem& problem :
       {Problem{.op = Op::kGemm, .n = 32, .k = 256, .group_size = 32, .dtype = Dtype::kF16},
        Problem{.op = Op::kGeglu, .n = 48, .k = 192, .group_size = 64, .dtype = Dtype::kBF16},
        Problem{.op = Op::kGemm, .n = 16, .k = 320, .group_size = 320, .dtype = Dtype::kF16}}) {
    const HostOperands host = random_operands(problem, 1, 11);
    std::vector<std::uint32_t> weight(packed_weight_bytes(problem) / 4);
    std::vector<std::uint16_t> scales(packed_scale_bytes(problem) / 2);
    pack_weights(problem, {.nibbles = host.nibbles.data(), .scales = host.scales.data()},
                 weight.data(), scales.data());
    const auto k = static_cast<std::size_t>(problem.k);
    const auto rows = static_cast<std::size_t>(weight_rows(problem));
    const auto group = static_cast<std::size_t>(problem.group_size);
    std::vector<std::uint16_t> w(rows * k, 0xffff);
    dequantize_weights(problem, weight.data(), scales.data(), w.data());
    for (std::size_t i = 0; i < w.size(); ++i) {
      const int value = ((host.nibbles[i / 2] >> (4 * (i % 2))) & 15) - 8;
      const float scale = to_float(problem.dtype, host.scales[i / k * (k / group) + i % k / group]);
      ASSERT_EQ(w[i], from_float(problem.dtype, scale * static_cast<float>(value)))
          << to_string(problem) << " at " << i;
    }
    samples::expect_error(ErrorCode::kInvalidArgument, "dequantize_weights: w", [&] {
      dequantize_weights(problem, weight.data(), scales.data(), nullptr);
    });
  }
}

TEST(PackingTest, RefusesProblemsAndPointersThatDoNotFit) {
  const Problem good{.op = Op::kGemm, .n = 16, .k = 64, .group_size = 64, .dtype = Dtype::kF16};
  Problem bad = good;
  bad.n = 17;
  expect_error(ErrorCode::kInvalidArgument, "N = 17", [&] { validate_problem(bad); });
  expect_error(ErrorCode::kInvalidArgument, "N = 17", [&] { packed_weight_bytes(bad); });
  expect_error(ErrorCode::kInvalidArgument, "N = 17", [&] { packed_scale_bytes(bad); });
  EXPECT_EQ(packed_weight_bytes(good), 512U);
  EXPECT_EQ(packed_scale_bytes(good), 32U);
  alignas(16) char memory[1024] = {};
  const UnpackedWeight weight{
      .nibbles = memory, .scales = memory, .encoding = NibbleEncoding::kOffset8};
  expect_error(ErrorCode::kInvalidArgument, "nibbles",
               [&] { pack_weights(good, {}, memory, memory); });
  expect_error(ErrorCode::kInvalidArgument, "packed_w",
               [&] { pack_weights(good, weight, memory + 2, memory); });
  expect_error(ErrorCode::kInvalidArgument, "packed_scales",
               [&] { pack_weights(good, weight, memory, memory + 1); });
}

}  // namespace
}  // namespace w4tune

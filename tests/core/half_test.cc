#include "core/half.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <limits>

namespace w4tune {
namespace {

constexpr std::uint32_t kPatterns = 1U << 16;

bool is_nan_f16(std::uint32_t bits) { return (bits & 0x7fff) > 0x7c00; }
bool is_nan_bf16(std::uint32_t bits) { return (bits & 0x7fff) > 0x7f80; }

// What FP16 bits mean, by the definition of the format.
double f16_value(std::uint32_t bits) {
  const int exponent = static_cast<int>((bits >> 10) & 0x1f);
  const auto fraction = static_cast<double>(bits & 0x3ff);
  const double magnitude =
      exponent == 0 ? std::ldexp(fraction, -24) : std::ldexp(1024.0 + fraction, exponent - 25);
  return (bits & 0x8000) != 0 ? -magnitude : magnitude;
}

TEST(Half, EveryFiniteF16HasItsValueAndReturns) {
  for (std::uint32_t bits = 0; bits < kPatterns; ++bits) {
    const auto f16 = static_cast<std::uint16_t>(bits);
    if (is_nan_f16(bits)) {
      EXPECT_TRUE(std::isnan(f16_to_float(f16)));
      EXPECT_TRUE(is_nan_f16(f16_from_float(f16_to_float(f16))));
      continue;
    }
    ASSERT_EQ(f16_from_float(f16_to_float(f16)), f16) << bits;
    if ((bits & 0x7fff) != 0x7c00) {
      ASSERT_EQ(static_cast<double>(f16_to_float(f16)), f16_value(bits)) << bits;
    }
  }
}

TEST(Half, EveryFiniteBF16Returns) {
  for (std::uint32_t bits = 0; bits < kPatterns; ++bits) {
    const auto bf16 = static_cast<std::uint16_t>(bits);
    if (is_nan_bf16(bits)) {
      EXPECT_TRUE(is_nan_bf16(bf16_from_float(bf16_to_float(bf16))));
      continue;
    }
    ASSERT_EQ(bf16_from_float(bf16_to_float(bf16)), bf16) << bits;
  }
}

// Between neighbours: below the middle goes down, above goes up, the middle goes to the even one.
TEST(Half, F16RoundsToNearestEven) {
  for (std::uint16_t low = 0; low < 0x7bff; ++low) {
    const auto high = static_cast<std::uint16_t>(low + 1);
    const float middle = (f16_to_float(low) + f16_to_float(high)) / 2.0F;  // exact in FP32
    ASSERT_EQ(f16_from_float(middle), low % 2 == 0 ? low : high) << low;
    ASSERT_EQ(f16_from_float(std::nextafter(middle, 0.0F)), low) << low;
    ASSERT_EQ(f16_from_float(std::nextafter(middle, 1e6F)), high) << low;
    ASSERT_EQ(f16_from_float(-middle), 0x8000 | (low % 2 == 0 ? low : high)) << low;
  }
}

TEST(Half, BF16RoundsToNearestEven) {
  for (std::uint16_t low = 0x0080; low < 0x7f7f; ++low) {
    const auto high = static_cast<std::uint16_t>(low + 1);
    const float middle = std::bit_cast<float>((static_cast<std::uint32_t>(low) << 16) | 0x8000);
    ASSERT_EQ(bf16_from_float(middle), low % 2 == 0 ? low : high) << low;
    ASSERT_EQ(bf16_from_float(std::nextafter(middle, 0.0F)), low) << low;
    ASSERT_EQ(bf16_from_float(std::nextafter(middle, INFINITY)), high) << low;
  }
}

TEST(Half, TheEdgesOfF16) {
  EXPECT_EQ(f16_from_float(65504.0F), 0x7bff);
  EXPECT_EQ(f16_from_float(65519.996F), 0x7bff);
  EXPECT_EQ(f16_from_float(65520.0F), 0x7c00);
  EXPECT_EQ(f16_from_float(-1e9F), 0xfc00);
  EXPECT_EQ(f16_from_float(std::numeric_limits<float>::infinity()), 0x7c00);
  EXPECT_EQ(f16_from_float(0x1p-25F), 0);  // half the smallest: a tie, to even
  EXPECT_EQ(f16_from_float(0x1.8p-25F), 1);
  EXPECT_EQ(f16_from_float(-0.0F), 0x8000);
  EXPECT_EQ(f16_to_float(0x7c00), std::numeric_limits<float>::infinity());
}

TEST(Half, TheDtypeChoosesTheFormat) {
  EXPECT_EQ(from_float(Dtype::kF16, 1.0F), 0x3c00);
  EXPECT_EQ(from_float(Dtype::kBF16, 1.0F), 0x3f80);
  EXPECT_EQ(to_float(Dtype::kF16, 0x3c00), 1.0F);
  EXPECT_EQ(to_float(Dtype::kBF16, 0x3f80), 1.0F);
  for (const Dtype dtype : {Dtype::kF16, Dtype::kBF16}) {
    const auto one = from_float(dtype, 1.0F);
    const float next = to_float(dtype, static_cast<std::uint16_t>(one + 1));
    EXPECT_EQ(unit_roundoff(dtype), (static_cast<double>(next) - 1.0) / 2.0);
  }
}

}  // namespace
}  // namespace w4tune

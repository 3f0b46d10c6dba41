// FP16 and BF16 as bit patterns: round-to-nearest-even conversions, infinities and NaN kept.
#pragma once

#include <bit>
#include <cstdint>

#include "w4tune/types.h"

namespace w4tune {

std::uint16_t f16_from_float(float value);
float f16_to_float(std::uint16_t bits);

inline std::uint16_t bf16_from_float(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  if (value != value) return static_cast<std::uint16_t>((bits >> 16) | 0x40);  // keep NaN quiet
  return static_cast<std::uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

inline float bf16_to_float(std::uint16_t bits) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
}

inline std::uint16_t from_float(Dtype dtype, float value) {
  return dtype == Dtype::kF16 ? f16_from_float(value) : bf16_from_float(value);
}

inline float to_float(Dtype dtype, std::uint16_t bits) {
  return dtype == Dtype::kF16 ? f16_to_float(bits) : bf16_to_float(bits);
}

// Half the spacing of numbers near 1: the relative error of one rounding.
inline double unit_roundoff(Dtype dtype) { return dtype == Dtype::kF16 ? 0x1p-11 : 0x1p-8; }

}  // namespace w4tune

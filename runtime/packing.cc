#include "w4tune/packing.h"

#include <fmt/format.h>

#include <cstdint>

#include "core/problem.h"
#include "core/weight_layout.h"
#include "w4tune/error.h"

namespace w4tune {
namespace {

void check_pointer(const char* call, const char* name, const void* pointer,
                   std::uintptr_t alignment) {
  if (pointer != nullptr && reinterpret_cast<std::uintptr_t>(pointer) % alignment == 0) return;
  throw Error(ErrorCode::kInvalidArgument,
              fmt::format("{}: {} = {} must be host memory aligned to {} bytes.", call, name,
                          pointer, alignment));
}

}  // namespace

void validate_problem(const Problem& problem) { validate(problem); }

std::size_t packed_weight_bytes(const Problem& problem) {
  validate(problem);
  return weight_bytes(problem);
}

std::size_t packed_scale_bytes(const Problem& problem) {
  validate(problem);
  return scale_bytes(problem);
}

void pack_weights(const Problem& problem, const UnpackedWeight& weight, void* packed_w,
                  void* packed_scales) {
  validate(problem);
  constexpr const char* kCall = "pack_weights";
  check_pointer(kCall, "nibbles", weight.nibbles, 1);
  check_pointer(kCall, "scales", weight.scales, alignof(std::uint16_t));
  check_pointer(kCall, "packed_w", packed_w, alignof(std::uint32_t));
  check_pointer(kCall, "packed_scales", packed_scales, alignof(std::uint16_t));
  pack_weight(problem, static_cast<const std::uint8_t*>(weight.nibbles), weight.encoding,
              static_cast<const std::uint16_t*>(weight.scales),
              static_cast<std::uint32_t*>(packed_w), static_cast<std::uint16_t*>(packed_scales));
}

void dequantize_weights(const Problem& problem, const void* packed_w, const void* packed_scales,
                        void* w) {
  validate(problem);
  constexpr const char* kCall = "dequantize_weights";
  check_pointer(kCall, "packed_w", packed_w, alignof(std::uint32_t));
  check_pointer(kCall, "packed_scales", packed_scales, alignof(std::uint16_t));
  check_pointer(kCall, "w", w, alignof(std::uint16_t));
  dequantize_weight(problem, static_cast<const std::uint32_t*>(packed_w),
                    static_cast<const std::uint16_t*>(packed_scales),
                    static_cast<std::uint16_t*>(w));
}

}  // namespace w4tune

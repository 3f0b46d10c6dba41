// Uses an installed libw4tune from C++: headers, link, load, and an exception across the library.

#include <w4tune/dispatcher.h>
#include <w4tune/error.h>
#include <w4tune/packing.h>

#include <cstdint>
#include <cstring>
#include <vector>

namespace {

constexpr w4tune::Problem kProblem{w4tune::Op::kGemm, 16, 64, 64, w4tune::Dtype::kF16};

bool packs() {
  const std::vector<std::uint8_t> nibbles(16 * 64 / 2, 0x77);
  const std::vector<std::uint16_t> scales(16, 0x3c00);
  std::vector<std::uint8_t> packed(w4tune::packed_weight_bytes(kProblem));
  std::vector<std::uint16_t> packed_scales(w4tune::packed_scale_bytes(kProblem) / 2);
  w4tune::pack_weights(kProblem, {nibbles.data(), scales.data()}, packed.data(),
                       packed_scales.data());
  return packed == nibbles && packed_scales == scales;
}

bool refuses_a_missing_file() {
  try {
    w4tune::Dispatcher::open("no such file", {.device_name = "a40"});
  } catch (const w4tune::Error& error) {
    return error.code() == w4tune::ErrorCode::kNotFound &&
           std::strstr(error.what(), "no such file") != nullptr;
  }
  return false;
}

}  // namespace

int main() { return packs() && refuses_a_missing_file() ? 0 : 1; }

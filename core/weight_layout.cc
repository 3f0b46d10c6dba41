#include "core/weight_layout.h"

#include <algorithm>

#include "core/half.h"

namespace w4tune {

NibblePosition nibble_position(int k, int row, int depth) {
  const int row_in_tile = row % 16;
  const int depth_in_step = depth % 16;
  const int lane = 4 * (row_in_tile % 8) + (depth_in_step % 8) / 2;
  const int step = (depth % 64) / 16;
  const std::size_t block = static_cast<std::size_t>(row / 16) * static_cast<std::size_t>(k / 64) +
                            static_cast<std::size_t>(depth / 64);
  const int shift = 16 * (depth_in_step % 2) + 8 * (depth_in_step / 8) + 4 * (row_in_tile / 8);
  return {(block * 32 + static_cast<std::size_t>(lane)) * 4 + static_cast<std::size_t>(step),
          shift};
}

std::size_t scale_position(int groups, int row, int group) {
  const auto tile = static_cast<std::size_t>(row / 16);
  return (tile * static_cast<std::size_t>(groups) + static_cast<std::size_t>(group)) * 16 +
         static_cast<std::size_t>(row % 16);
}

int source_row(const Problem& problem, int row) {
  if (problem.op == Op::kGemm) return row;
  const int output = 8 * (row / 16) + row % 8;
  const bool is_up = row % 16 >= 8;
  return is_up ? problem.n + output : output;
}

void pack_weight(const Problem& problem, const std::uint8_t* nibbles, NibbleEncoding encoding,
                 const std::uint16_t* scales, std::uint32_t* packed_weight,
                 std::uint16_t* packed_scales) {
  const int rows = weight_rows(problem);
  const int groups = num_groups(problem);
  // Adding 8 to a two's complement nibble, modulo 16, is flipping its sign bit.
  const std::uint32_t flip = encoding == NibbleEncoding::kSigned ? 8 : 0;
  std::fill_n(packed_weight, weight_bytes(problem) / sizeof(std::uint32_t), 0U);
  for (int row = 0; row < rows; ++row) {
    const auto source = static_cast<std::size_t>(source_row(problem, row));
    const std::uint8_t* from = nibbles + source * static_cast<std::size_t>(problem.k / 2);
    for (int depth = 0; depth < problem.k; ++depth) {
      const std::uint32_t nibble = (from[depth / 2] >> (4 * (depth % 2))) & 0xF;
      const NibblePosition at = nibble_position(problem.k, row, depth);
      packed_weight[at.word] |= (nibble ^ flip) << at.shift;
    }
    for (int group = 0; group < groups; ++group) {
      packed_scales[scale_position(groups, row, group)] =
          scales[source * static_cast<std::size_t>(groups) + static_cast<std::size_t>(group)];
    }
  }
}

void dequantize_weight(const Problem& problem, const std::uint32_t* packed_weight,
                       const std::uint16_t* packed_scales, std::uint16_t* w) {
  const int rows = weight_rows(problem);
  const int groups = num_groups(problem);
  for (int row = 0; row < rows; ++row) {
    std::uint16_t* to = w + static_cast<std::size_t>(source_row(problem, row)) *
                                static_cast<std::size_t>(problem.k);
    for (int group = 0; group < groups; ++group) {
      const float scale =
          to_float(problem.dtype, packed_scales[scale_position(groups, row, group)]);
      const int begin = group * problem.group_size;
      for (int depth = begin; depth < begin + problem.group_size; ++depth) {
        const NibblePosition at = nibble_position(problem.k, row, depth);
        const int value = static_cast<int>((packed_weight[at.word] >> at.shift) & 0xF) - 8;
        to[depth] = from_float(problem.dtype, scale * static_cast<float>(value));
      }
    }
  }
}

}  // namespace w4tune

// Layout L0: one packed weight serves every family, every M and every dequantisation.
//
//   W[rows / 16][K / 64][lane 32][16 bytes]      512 bytes for 16 rows x 64 of depth
//   S[rows / 16][K / group][16] FP16 or BF16     32 bytes for 16 rows x one group
//
// lane = 4 * g + t owns, in word s (0..3) of its 16 bytes, the weights of the A operand of
// mma.sync.m16n8k16 for depth step k0 = 64 * block + 16 * s (PTX ISA, fragments of m16n8k16):
//
//   bits  0-3  row g,     k0 + 2t        bits 16-19  row g,     k0 + 2t + 1
//   bits  4-7  row g + 8, k0 + 2t        bits 20-23  row g + 8, k0 + 2t + 1
//   bits  8-11 row g,     k0 + 2t + 8    bits 24-27  row g,     k0 + 2t + 9
//   bits 12-15 row g + 8, k0 + 2t + 8    bits 28-31  row g + 8, k0 + 2t + 9
//
// Nibbles hold u = w + 8, so that 0..15 stands for -8..7. For geglu the 2n rows interleave by 8:
// rows 0-7 of each 16-row tile are gate rows, rows 8-15 the up rows of the same outputs.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/problem.h"

namespace w4tune {

struct NibblePosition {
  std::size_t word;  // 32-bit word within the packed weight
  int shift;         // bit of the nibble within the word
};

// Where the weight of packed row `row` at depth `depth` lies.
NibblePosition nibble_position(int k, int row, int depth);

// Element of the packed scales that belongs to packed row `row` and group `group`.
std::size_t scale_position(int groups, int row, int group);

// Row of the unpacked weight that packed row `row` comes from. For geglu the unpacked weight is
// gate [n, k/2 bytes] followed by up [n, k/2 bytes].
int source_row(const Problem& problem, int row);

// Packs on the CPU. `nibbles` [weight_rows, k/2], `scales` [weight_rows, k/group] row-major, in the
// problem's dtype; outputs have weight_bytes() and scale_bytes() bytes.
void pack_weight(const Problem& problem, const std::uint8_t* nibbles, NibbleEncoding encoding,
                 const std::uint16_t* scales, std::uint32_t* packed_weight,
                 std::uint16_t* packed_scales);

// The inverse with the scales applied: w [weight_rows, k] row-major in unpacked row order, in the
// problem's dtype, each q * scale rounded once.
void dequantize_weight(const Problem& problem, const std::uint32_t* packed_weight,
                       const std::uint16_t* packed_scales, std::uint16_t* w);

}  // namespace w4tune

// Tensor maps: how the copy engine of sm_90 finds a box of a matrix.
#pragma once

#include <cuda.h>

#include <cstdint>

#include "core/gemm_args.h"
#include "core/launch_plan.h"
#include "core/problem.h"

namespace w4tune {

// A row-major matrix of 16-bit elements seen in three dimensions, [columns / 64][rows][64], so that
// one copy brings `box_rows` rows of `box_columns` columns in blocks of 64, each row of a block 128
// bytes and swizzled by row % 8. Elements beyond the last row read as zero. A plain value for a
// kernel argument; calls the driver, touches no GPU, allocates nothing. Requires `data` and
// row_stride * 2 to be multiples of 16, columns and box_columns of 64, box_rows and box_columns /
// 64 up to 256. Throws Error{kDevice} when the driver refuses it.
CUtensorMap map_matrix(const void* data, int rows, int columns, std::int64_t row_stride,
                       int box_rows, int box_columns);

// A packed weight (core/weight_layout.h) as such a matrix: each 16 rows are one, of 16-bit words,
// so that a box is `row_tile` rows, kBoxDepth deep.
CUtensorMap map_weights(const void* packed, int rows, int k, int row_tile);

// What a GEMM kernel takes behind its GemmArgs: of x if Footprint::token_map, of w if persistent,
// else zeros that no kernel reads.
struct KernelMaps {
  CUtensorMap tokens{};
  CUtensorMap weights{};
};
KernelMaps kernel_maps(const Footprint& footprint, const Problem& problem,
                       const w4::GemmArgs& args);

}  // namespace w4tune

// Tensor maps: how the copy engine of sm_90 finds a box of a matrix.
#pragma once

#include <cuda.h>

#include <cstdint>

namespace w4tune {

// A row-major matrix of 16-bit elements seen in three dimensions, [columns / 64][rows][64], so that
// one copy brings `box_rows` rows of `box_columns` columns in blocks of 64, each row of a block 128
// bytes and swizzled by row % 8. Elements beyond the last row read as zero. A plain value for a
// kernel argument; calls the driver, touches no GPU, allocates nothing. Requires `data` and
// row_stride * 2 to be multiples of 16, columns and box_columns of 64, box_rows and box_columns /
// 64 up to 256. Throws Error{kDevice} when the driver refuses it.
CUtensorMap map_matrix(const void* data, int rows, int columns, std::int64_t row_stride,
                       int box_rows, int box_columns);

}  // namespace w4tune

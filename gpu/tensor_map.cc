#include "gpu/tensor_map.h"

#include <array>

#include "gpu/driver.h"

namespace w4tune {
namespace {

constexpr int kBlock = 64;  // columns: 128 bytes, the width of the swizzle
constexpr cuuint64_t kElementBytes = 2;

}  // namespace

CUtensorMap map_matrix(const void* data, int rows, int columns, std::int64_t row_stride,
                       int box_rows, int box_columns) {
  const std::array<cuuint64_t, 3> sizes = {kBlock, static_cast<cuuint64_t>(rows),
                                           static_cast<cuuint64_t>(columns / kBlock)};
  const std::array<cuuint64_t, 2> stride_bytes = {
      static_cast<cuuint64_t>(row_stride) * kElementBytes, kBlock * kElementBytes};
  const std::array<cuuint32_t, 3> box = {kBlock, static_cast<cuuint32_t>(box_rows),
                                         static_cast<cuuint32_t>(box_columns / kBlock)};
  const std::array<cuuint32_t, 3> steps = {1, 1, 1};
  CUtensorMap map{};
  check(driver().tensor_map_encode_tiled(
            &map, CU_TENSOR_MAP_DATA_TYPE_UINT16, static_cast<cuuint32_t>(sizes.size()),
            const_cast<void*>(data), sizes.data(), stride_bytes.data(), box.data(), steps.data(),
            CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
            CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE),
        "cuTensorMapEncodeTiled");
  return map;
}

CUtensorMap map_weights(const void* packed, int rows, int k, int row_tile) {
  constexpr int kFragmentRows = 16;
  constexpr int kDepthWords = 4;  // 16 nibbles
  return map_matrix(packed, rows / kFragmentRows, k * kDepthWords, std::int64_t{k} * kDepthWords,
                    row_tile / kFragmentRows, kBoxDepth * kDepthWords);
}

KernelMaps kernel_maps(const Footprint& footprint, const Problem& problem,
                       const w4::GemmArgs& args) {
  KernelMaps maps;
  if (footprint.token_map) {
    const TokenBox box = token_box(footprint, args.m);
    maps.tokens = map_matrix(args.x, args.m, args.k, args.ldx, box.tokens, box.depth);
  }
  if (footprint.persistent) {
    maps.weights = map_weights(args.w, weight_rows(problem), args.k, footprint.row_tile);
  }
  return maps;
}

}  // namespace w4tune

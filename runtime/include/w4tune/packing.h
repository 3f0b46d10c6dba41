// Packing on the CPU: from the plain INT4 layout of checkpoints to the one layout all kernels read.
//
// Unpacked: nibbles [rows, k / 2] bytes and scales [rows, k / group_size] in the problem's dtype,
// both row-major; the low nibble is the even k. rows is n; for geglu it is 2n, gate [n, ...]
// followed by up [n, ...]. Packed weights depend neither on M nor on the GPU: they may be stored.
// Safe from any thread. Every function throws Error{kInvalidArgument} for a problem that
// validate_problem refuses.
#pragma once

#include <cstddef>

#include "w4tune/export.h"
#include "w4tune/types.h"

namespace w4tune {

// A weight as checkpoints hold it; pointers to host memory here, to device memory for the
// Dispatcher.
struct UnpackedWeight {
  const void* nibbles = nullptr;
  const void* scales = nullptr;  // 2-byte aligned
  NibbleEncoding encoding = NibbleEncoding::kOffset8;
};

// Throws Error{kInvalidArgument} with the first limit the problem breaks: n a multiple of 16, k a
// multiple of 64 and of the group, group_size 32, 64, 128 or k.
W4TUNE_API void validate_problem(const Problem& problem);

// Bytes of the packed weight and of its packed scales.
W4TUNE_API std::size_t packed_weight_bytes(const Problem& problem);
W4TUNE_API std::size_t packed_scale_bytes(const Problem& problem);

// Packs host memory to host memory. `packed_w` has packed_weight_bytes() and is 4-byte aligned,
// `packed_scales` has packed_scale_bytes() and is 2-byte aligned; neither overlaps the input.
W4TUNE_API void pack_weights(const Problem& problem, const UnpackedWeight& weight, void* packed_w,
                             void* packed_scales);

// The weight back: w [rows, k] row-major in the problem's dtype, each q * scale rounded once. Host
// memory; `w` is 2-byte aligned.
W4TUNE_API void dequantize_weights(const Problem& problem, const void* packed_w,
                                   const void* packed_scales, void* w);

}  // namespace w4tune

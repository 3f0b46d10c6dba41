// What is asked of the device itself, in the same run as the kernels: its ceilings, of which the
// first two are what floors are built on, and what its tensor cores do with denormals.
#pragma once

#include <string>

#include "core/device_info.h"
#include "gpu/stream.h"
#include "tuner/verify.h"

namespace w4tune {

struct Ceilings {
  double copy_gbps = 0.0;   // device-to-device copy, bytes read plus bytes written
  double mma_tflops = 0.0;  // FP16 with FP32 accumulation
  std::string mma_source;   // "cublaslt_8192" or "data sheet" where cuBLASLt is missing
  // By mma.sync alone, from registers: less than mma_tflops where the GPU has wgmma. 0: unknown.
  double mma_sync_tflops = 0.0;
};

// Whether mma.sync takes FP16 denormals as they are, by a kernel of one warp. What dequantisations
// 2 and 3 rest on; a GPU that flushes them would compute zeros. Requires a current context.
bool probe_mma_denormals(const UtilityKernels& utilities, const Stream& stream);

// Takes about half a second and 2 GiB of device memory. Requires a current context.
Ceilings probe_ceilings(const DeviceInfo& device, const UtilityKernels& utilities,
                        const Stream& stream);

}  // namespace w4tune

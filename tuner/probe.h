// The device's two ceilings, measured in the same run as the kernels: floors are built on them.
#pragma once

#include <string>

#include "core/device_info.h"
#include "gpu/stream.h"

namespace w4tune {

struct Ceilings {
  double copy_gbps = 0.0;   // device-to-device copy, bytes read plus bytes written
  double mma_tflops = 0.0;  // FP16 with FP32 accumulation
  std::string mma_source;   // "cublaslt_8192" or "data sheet" where cuBLASLt is missing
};

// Takes about half a second and 2 GiB of device memory. Requires a current context.
Ceilings probe_ceilings(const DeviceInfo& device, const Stream& stream);

}  // namespace w4tune

// What is asked of the device itself: its ceilings, which floors are built on, what its tensor
// cores do with denormals, and the calibration of the cost model (docs/kernels.md, "Cost model").
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "cache/store.h"
#include "core/calibration.h"
#include "core/device_info.h"
#include "gpu/stream.h"
#include "tuner/gpu_session.h"
#include "tuner/verify.h"

namespace w4tune {

struct Ceilings {
  double copy_gbps = 0.0;   // device-to-device copy, bytes read plus bytes written
  double mma_tflops = 0.0;  // FP16 with FP32 accumulation
  // "cublaslt_8192", or where cuBLASLt is missing "data sheet", or where there is none "mma.sync".
  std::string mma_source;
  // By mma.sync alone, from registers: less than mma_tflops where the GPU has wgmma. 0: unknown.
  double mma_sync_tflops = 0.0;
};

// Whether mma.sync takes FP16 denormals as they are, by a kernel of one warp. What dequantisations
// 2 and 3 rest on; a GPU that flushes them would compute zeros. Requires a current context.
bool probe_mma_denormals(const UtilityKernels& utilities, const Stream& stream);

// Takes about half a second and 2 GiB of device memory. Requires a current context.
Ceilings probe_ceilings(const DeviceInfo& device, const UtilityKernels& utilities,
                        const Stream& stream);

// Told what is measured next: "read bandwidth".
using OnStep = std::function<void(const std::string& what)>;

// Measures a Calibration. A second or two, 10 s at most, and 2 GiB of device memory. `gpu` is that
// of `device`, with utility kernels of these sources. Throws Error{kDevice} where a figure comes
// out as none can be.
Calibration probe_device(const DeviceInfo& device, const GpuSession& gpu, const OnStep& on_step);

// What is stored of the device, if it was measured in this way under this driver.
std::optional<Calibration> usable_calibration(const Store& store, const DeviceInfo& device);

Ceilings ceilings_of(const Calibration& calibration);

}  // namespace w4tune

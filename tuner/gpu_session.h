// GpuSession: what stays the same while one GPU measures: context, stream, probes, utility kernels,
// workspace. One thread uses it.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <utility>

#include "core/compilation.h"
#include "core/device_info.h"
#include "core/trial.h"
#include "gpu/buffer.h"
#include "gpu/clock_probe.h"
#include "gpu/context.h"
#include "gpu/module.h"
#include "gpu/stream.h"
#include "tuner/operands.h"
#include "tuner/verify.h"

namespace w4tune {

// A loaded kernel with what its launch needs.
struct LoadedKernel {
  Kernel kernel;
  Footprint footprint;
};

class GpuSession {
 public:
  GpuSession(int ordinal, std::size_t max_workspace_bytes, const std::string& utility_image);

  [[nodiscard]] const Stream& stream() const { return stream_; }
  [[nodiscard]] const ClockProbe& clock() const { return clock_; }
  [[nodiscard]] const UtilityKernels& utilities() const { return utilities_; }

  // Loads a cubin or PTX once for a footprint; throws Error{kDevice} when the GPU refuses it.
  const LoadedKernel& load(const Compilation& compilation, const Footprint& footprint);

  // Puts one launch into `stream`, as a dependent one where `dependent` is set and the kernel may.
  // The workspace is shared: one stream at a time.
  void launch_gemm(const LoadedKernel& kernel, const Problem& problem, Schedule schedule,
                   w4::GemmArgs args, CUstream stream, bool dependent = false) const;

  // Scratch of max_workspace_bytes, which kernels that split use for their partials.
  [[nodiscard]] void* workspace() const { return partials_.as<void>(); }

  // Counters as a fresh launch expects them, whatever the last kernel left behind.
  void reset_counters();

  // Runs a kernel once on poisoned outputs and judges it. Throws Error{kDevice} if it crashes.
  ErrorMetrics check(const LoadedKernel& kernel, const Candidate& candidate,
                     const Operands& operands, const Verifier& verifier, int m);

 private:
  static constexpr std::size_t kCounters = 1 << 16;

  Context context_;
  bool can_begin_early_;  // sm_90 knows dependent launches
  int sm_count_;
  Stream stream_;
  ClockProbe clock_;
  UtilityKernels utilities_;
  Buffer partials_;
  Buffer counters_;
  // By compilation key and shared memory, which may depend on more than the cubin does.
  std::map<std::pair<std::string, int>, LoadedKernel> kernels_;
};

// The dequantisation mode a configuration uses, which sets its error bound.
int dequant_mode(const KernelConfig& config);

}  // namespace w4tune

// CompositeRun: dequant_cublas (core/composite.h) on one workload, measured beside the kernels.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/composite.h"
#include "gpu/sliced_product.h"
#include "tuner/gpu_session.h"
#include "tuner/measure.h"
#include "tuner/operands.h"
#include "tuner/options.h"

namespace w4tune {

// Which slices a run on the GPU would measure, or why none.
SlicePlan plan_composite(const Workload& workload, const TuneOptions& options);

class CompositeRun {
 public:
  // Slices of one size. Uses the session's workspace as scratch: one stream at a time, as its
  // kernels. Throws Error{kDevice} where cuBLASLt has no algorithm.
  CompositeRun(const GpuSession& gpu, const Protocol& protocol, const Operands& operands, int m,
               int slice_rows);

  [[nodiscard]] MeasuredGraph& graph() { return *graph_; }
  [[nodiscard]] double search_us() const { return search_us_; }  // median of the first samples
  [[nodiscard]] int slice_rows() const { return slice_rows_; }
  [[nodiscard]] std::size_t scratch_bytes() const;

  // Runs it once for m tokens, at most those it was made for, on poisoned outputs and judges it.
  [[nodiscard]] ErrorMetrics check(const Verifier& verifier, int m) const;

 private:
  const GpuSession& gpu_;
  const Operands& operands_;
  int m_;
  int slice_rows_;
  SliceKernels kernels_;
  std::unique_ptr<SlicedProduct> product_;
  std::unique_ptr<MeasuredGraph> graph_;
  double search_us_ = 0.0;
};

// The fastest of these slices; null where cuBLASLt runs none of them.
std::unique_ptr<CompositeRun> fastest_composite(const GpuSession& gpu, const Protocol& protocol,
                                                const Operands& operands, int m,
                                                const std::vector<int>& slice_rows);

}  // namespace w4tune

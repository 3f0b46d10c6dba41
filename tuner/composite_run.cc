#include "tuner/composite_run.h"

#include <vector>

#include "core/stats.h"
#include "w4tune/error.h"

namespace w4tune {

SlicePlan plan_composite(const Workload& workload, const TuneOptions& options) {
  if (!options.baseline)
    return {.slice_rows = {}, .left_out = "--no-baseline: cuBLASLt is not measured"};
  if (!CublasLt::available()) return {.slice_rows = {}, .left_out = "cuBLASLt is not found"};
  return plan_slices(workload, options.max_workspace_bytes, options.device.l2_bytes);
}

CompositeRun::CompositeRun(const GpuSession& gpu, const Protocol& protocol,
                           const Operands& operands, int m, int slice_rows)
    : gpu_(gpu), operands_(operands), m_(m), slice_rows_(slice_rows) {
  constexpr double kEstimateUs = 50.0;  // of FP16 and the dequantisation: from there on it matters
  const Problem& problem = operands.problem();
  const bool f16 = problem.dtype == Dtype::kF16;
  kernels_ = {
      .dequantize = gpu.utilities().function(f16 ? "w4_dequantize_f16" : "w4_dequantize_bf16"),
      .activate = gpu.utilities().function(f16 ? "w4_activate_rows_f16" : "w4_activate_rows_bf16")};
  product_ = std::make_unique<SlicedProduct>(problem, slice_rows, m, m, problem.k, problem.n);
  const auto launch_on = [this](CUstream stream, int copy) {
    product_->run(kernels_, operands_.args(m_, copy), gpu_.workspace(), stream);
  };
  graph_ = std::make_unique<MeasuredGraph>(gpu.stream(), gpu.clock(), protocol, operands.copies(),
                                           kEstimateUs, launch_on);
  graph_->sample();  // uploads the graph, warms up
  std::vector<double> times;
  for (int i = 0; i < protocol.search_samples; ++i) times.push_back(graph_->sample().time_us);
  search_us_ = median(times);
}

std::size_t CompositeRun::scratch_bytes() const {
  return slice_scratch(operands_.problem(), slice_rows_, m_).total();
}

ErrorMetrics CompositeRun::check(const Verifier& verifier, int m) const {
  const Problem& problem = operands_.problem();
  operands_.poison_y();
  const SlicedProduct product(problem, slice_rows_, m_, m, problem.k, problem.n);
  // The last copy: a copy other than the first would show a wrong stride between copies.
  product.run(kernels_, operands_.args(m, operands_.copies() - 1), gpu_.workspace(),
              gpu_.stream().handle());
  gpu_.stream().synchronize();
  constexpr int kRoundedWeights = 0;  // each weight is rounded after its scale, as D0 does
  return verifier.judge(m, kRoundedWeights);
}

std::unique_ptr<CompositeRun> fastest_composite(const GpuSession& gpu, const Protocol& protocol,
                                                const Operands& operands, int m,
                                                const std::vector<int>& slice_rows) {
  std::unique_ptr<CompositeRun> best;
  for (const int rows : slice_rows) {
    try {
      auto run = std::make_unique<CompositeRun>(gpu, protocol, operands, m, rows);
      if (!best || run->search_us() < best->search_us()) best = std::move(run);
    } catch (const Error& error) {
      if (error.code() != ErrorCode::kDevice) throw;  // cuBLASLt refuses: passed over
    }
  }
  return best;
}

}  // namespace w4tune

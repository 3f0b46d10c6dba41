#include "tuner/gpu_session.h"

#include <fmt/format.h>

#include "core/check.h"
#include "gpu/device.h"
#include "gpu/tensor_map.h"
#include "w4tune/error.h"

namespace w4tune {

GpuSession::GpuSession(int ordinal, std::size_t max_workspace_bytes,
                       const std::string& utility_image)
    : context_(ordinal),
      can_begin_early_(query_device(ordinal).sm >= 90),
      sm_count_(query_device(ordinal).sm_count),
      clock_(2),
      utilities_(utility_image),
      partials_(max_workspace_bytes),
      counters_(kCounters * sizeof(std::uint32_t)) {
  reset_counters();
}

const LoadedKernel& GpuSession::load(const Compilation& compilation, const Footprint& footprint) {
  const std::pair key{compilation.key, footprint.smem_bytes};
  const auto found = kernels_.find(key);
  if (found != kernels_.end()) return found->second;
  LoadedKernel loaded{Kernel(compilation.cubin, "w4_kernel"), footprint};
  loaded.kernel.allow_dynamic_smem(static_cast<std::size_t>(footprint.smem_bytes));
  return kernels_.emplace(key, std::move(loaded)).first->second;
}

void GpuSession::launch_gemm(const LoadedKernel& kernel, const Problem& problem, Schedule schedule,
                             w4::GemmArgs args, CUstream stream, bool dependent) const {
  const LaunchPlan plan = make_launch_plan(kernel.footprint, problem, args.m, schedule, sm_count_);
  W4_CHECK(plan.partial_bytes <= partials_.size_bytes() && plan.counter_count <= kCounters,
           "a candidate needs more workspace than the session has");
  args.partials = partials_.as<float>();
  args.counters = counters_.as<unsigned int>();
  args.split_k = plan.schedule.split_k;
  args.raster = plan.schedule.raster;
  const Footprint& footprint = kernel.footprint;
  dependent = dependent && footprint.dependent && can_begin_early_;
  args.dependent = dependent ? 1 : 0;
  KernelMaps maps = kernel_maps(footprint, problem, args);
  void* params[] = {&args, &maps.tokens, &maps.weights};  // kernels without maps have fewer
  launch(kernel.kernel.function(), plan.grid, plan.threads, plan.smem_bytes, stream, params,
         plan.cluster, dependent);
}

void GpuSession::reset_counters() { counters_.fill(0); }

ErrorMetrics GpuSession::check(const LoadedKernel& kernel, const Candidate& candidate,
                               const Operands& operands, const Verifier& verifier, int m) {
  operands.poison_y();
  reset_counters();
  // The last copy: a copy other than the first would show a wrong stride between copies.
  launch_gemm(kernel, operands.problem(), candidate.schedule,
              operands.args(m, operands.copies() - 1), stream_.handle());
  stream_.synchronize();
  return verifier.judge(m, dequant_mode(candidate.config));
}

int dequant_mode(const KernelConfig& config) { return config.at("dequant"); }

}  // namespace w4tune

#include "tuner/retime.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "core/check.h"
#include "gpu/cublaslt.h"
#include "tuner/compiler.h"
#include "tuner/composite_run.h"
#include "tuner/operands.h"
#include "tuner/verify.h"

namespace w4tune {
namespace {

Compilation utilities_of(const DeviceInfo& device) {
  return Compiler(arch_name(device.sm), "", 1, nullptr).utilities();
}

// What is measured for one entrant.
class Contest {
 public:
  Contest(GpuSession& gpu, const Protocol& protocol, const Operands& operands,
          const Verifier& verifier, const Entrant& entrant)
      : gpu_(gpu), operands_(operands), winner_(entrant.winner) {
    if (winner_.composite && CublasLt::available()) {
      composite_.emplace(gpu, protocol, operands, winner_.m, winner_.composite->slice_rows);
      is_right_ = is_correct(composite_->check(verifier, winner_.m));
      return;
    }
    Compilation compilation;
    compilation.key = winner_.compilation_key;
    compilation.cubin = entrant.cubin;
    kernel_ = &gpu.load(compilation, winner_.footprint);
    is_right_ = is_correct(gpu.check(*kernel_, winner_.candidate, operands, verifier, winner_.m));
    if (!is_right_) return;
    gpu.reset_counters();
    graph_ = std::make_unique<MeasuredGraph>(
        gpu.stream(), gpu.clock(), protocol, operands.copies(), winner_.time_us_median,
        [this, dependent = protocol.dependent](CUstream stream, int copy) {
          gpu_.launch_gemm(*kernel_, winner_.problem, winner_.candidate.schedule,
                           operands_.args(winner_.m, copy), stream, dependent);
        });
  }
  Contest(const Contest&) = delete;
  Contest& operator=(const Contest&) = delete;

  [[nodiscard]] bool is_right() const { return is_right_; }
  [[nodiscard]] MeasuredGraph& graph() { return composite_ ? composite_->graph() : *graph_; }

 private:
  GpuSession& gpu_;
  const Operands& operands_;
  const Winner& winner_;
  std::optional<CompositeRun> composite_;
  const LoadedKernel* kernel_ = nullptr;
  std::unique_ptr<MeasuredGraph> graph_;
  bool is_right_ = false;
};

}  // namespace

Retimer::Retimer(int ordinal, DeviceInfo device, const Protocol& protocol,
                 std::size_t workspace_bytes)
    : device_(std::move(device)),
      protocol_(protocol),
      gpu_(ordinal, workspace_bytes, utilities_of(device_).cubin) {}

std::size_t Retimer::workspace_for(const Winner& winner) {
  const LaunchPlan plan =
      make_launch_plan(winner.footprint, winner.problem, winner.m, winner.candidate.schedule);
  return std::max(plan.partial_bytes, winner.composite ? winner.composite->scratch_bytes : 0);
}

std::vector<Samples> Retimer::time(const std::vector<Entrant>& entrants) {
  W4_CHECK(!entrants.empty(), "nothing to time");
  const Winner& first = entrants.front().winner;
  const Operands operands(first.problem, first.m, device_.l2_bytes, protocol_);
  const Verifier verifier(gpu_.utilities(), operands, gpu_.stream());
  std::vector<std::unique_ptr<Contest>> contests;
  std::vector<MeasuredGraph*> order;
  for (const Entrant& entrant : entrants) {
    contests.push_back(std::make_unique<Contest>(gpu_, protocol_, operands, verifier, entrant));
    if (contests.back()->is_right()) order.push_back(&contests.back()->graph());
  }
  gpu_.reset_counters();
  for (MeasuredGraph* graph : order) graph->sample();  // uploads the graphs, warms up
  std::vector<Samples> samples = sample_interleaved(order, protocol_.final_samples);
  for (std::size_t i = 0; i < contests.size(); ++i) {
    if (contests[i]->is_right()) continue;
    samples.insert(samples.begin() + static_cast<std::ptrdiff_t>(i), Samples{});
  }
  return samples;
}

}  // namespace w4tune

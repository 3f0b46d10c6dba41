#include "tuner/bench.h"

#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <optional>

#include "cache/image.h"
#include "core/stats.h"
#include "templates/cost.h"
#include "tuner/baseline.h"
#include "tuner/gpu_session.h"
#include "tuner/probe.h"
#include "w4tune/error.h"

namespace w4tune {
namespace {

std::string utility_image(const Image& image) {
  for (const auto& [name, key] : image.devices.front().device_kernels) {
    if (name == "utility") return image.cubins.at(key);
  }
  throw Error(ErrorCode::kDatabase,
              "the cache file has no utility kernels. Run 'w4tune tune' on it once.");
}

// The operands of one problem, made when the first of its winners comes.
struct ProblemOperands {
  ProblemOperands(const Problem& problem, int max_m, const TuneOptions& options,
                  const GpuSession& gpu)
      : operands(problem, max_m, options.device.l2_bytes, options.protocol),
        verifier(gpu.utilities(), operands, gpu.stream()) {
    if (options.baseline && CublasLt::available()) {
      baseline.emplace(operands, options.device.l2_bytes, options.protocol);
    }
  }

  Operands operands;
  Verifier verifier;
  std::optional<BaselineOperands> baseline;
};

// The kernel that only reads a weight and its scales, by the copies of some operands.
class ReadLine {
 public:
  ReadLine(const GpuSession& gpu, const Operands& operands, const DeviceInfo& device)
      : function_(gpu.utilities().function("w4_read")),
        operands_(operands),
        may_begin_early_(device.sm >= 90),
        sink_(sizeof(std::uint32_t)) {
    const auto chunks = static_cast<std::size_t>(weight_chunks());
    blocks_ = static_cast<std::uint32_t>(
        std::min<std::size_t>((chunks + kThreads - 1) / kThreads, kBlocks));
  }

  void launch_on(CUstream stream, int copy, bool dependent) const {
    w4::GemmArgs args = operands_.args(1, copy);
    long long weight = weight_chunks();
    auto scales = static_cast<long long>(scale_bytes(operands_.problem()) / kChunkBytes);
    auto* sink = sink_.as<std::uint32_t>();
    void* params[] = {&args.w, &weight, &args.scales, &scales, &sink};
    launch(function_, blocks_, kThreads, 0, stream, params, 1, dependent && may_begin_early_);
  }

 private:
  // Of a handful of grids the fastest for 2 to 35 MB on an H200.
  static constexpr std::uint32_t kThreads = 256;
  static constexpr std::size_t kBlocks = 1024;
  static constexpr std::size_t kChunkBytes = 16;

  [[nodiscard]] long long weight_chunks() const {
    return static_cast<long long>(weight_bytes(operands_.problem()) / kChunkBytes);
  }

  CUfunction function_;
  const Operands& operands_;
  bool may_begin_early_;
  Buffer sink_;
  std::uint32_t blocks_ = 0;
};

WorkloadResult bench_one(const Winner& stored, const std::string& cubin, ProblemOperands& data,
                         GpuSession& gpu, const TuneOptions& options, double floor) {
  WorkloadResult row;
  row.workload = {stored.problem, stored.m};
  Winner winner = stored;
  Compilation compilation;
  compilation.key = stored.compilation_key;
  compilation.cubin = cubin;
  const LoadedKernel& kernel = gpu.load(compilation, stored.footprint);
  winner.error = gpu.check(kernel, stored.candidate, data.operands, data.verifier, stored.m);
  if (!is_correct(winner.error)) {
    throw Error(
        ErrorCode::kDevice,
        fmt::format("{} gives wrong results for {} (error {:.2f} times the bound). Tune the "
                    "file again on this GPU.",
                    to_string(stored.candidate), to_string(row.workload),
                    winner.error.worst_ratio));
  }
  gpu.reset_counters();
  MeasuredGraph graph(gpu.stream(), gpu.clock(), options.protocol, data.operands.copies(),
                      stored.time_us_median, [&](CUstream stream, int copy) {
                        gpu.launch_gemm(kernel, stored.problem, stored.candidate.schedule,
                                        data.operands.args(stored.m, copy), stream);
                      });
  const auto again = [&](double estimate_us, const LaunchOn& launch_on) {
    return MeasuredGraph(gpu.stream(), gpu.clock(), options.protocol, data.operands.copies(),
                         estimate_us, launch_on);
  };
  MeasuredGraph dependent = again(stored.time_us_median, [&](CUstream stream, int copy) {
    gpu.launch_gemm(kernel, stored.problem, stored.candidate.schedule,
                    data.operands.args(stored.m, copy), stream, true);
  });
  const ReadLine read(gpu, data.operands, options.device);
  MeasuredGraph reading =
      again(floor, [&](CUstream stream, int copy) { read.launch_on(stream, copy, false); });
  MeasuredGraph dependent_reading =
      again(floor, [&](CUstream stream, int copy) { read.launch_on(stream, copy, true); });
  std::optional<BaselineRun> baseline;
  std::vector<MeasuredGraph*> order = {&graph, &dependent, &reading, &dependent_reading};
  if (data.baseline) {
    baseline.emplace(gpu, options.protocol, data.operands, *data.baseline, stored.m);
    order.push_back(&baseline->graph());
  }
  for (MeasuredGraph* each : order) each->sample();  // uploads the graphs, warms up
  const std::vector<Samples> samples = sample_interleaved(order, options.protocol.final_samples);
  winner.provenance = Provenance::kMeasured;
  winner.time_us = samples[0].time_us;
  winner.clock_mhz = samples[0].clock_mhz;
  winner.composite.reset();  // kernels are what bench measures
  winner.time_us_median = median(winner.time_us);
  winner.floor_us = floor;
  if (baseline) {
    row.baseline = Baseline{baseline_name(stored.problem), baseline->detail(),
                            samples.back().time_us, samples.back().clock_mhz};
    winner.baseline_us = median(row.baseline->time_us);
  }
  row.lines = Lines{samples[1].time_us, samples[2].time_us, samples[3].time_us};
  row.winner = std::move(winner);
  row.evaluated = 1;
  return row;
}

// One layer of a chain.
struct Link {
  const Winner* winner;
  const LoadedKernel* kernel;
  std::unique_ptr<Operands> operands;
};

Link link_of(const Workload& workload, const std::vector<Winner>& winners, const Image& image,
             GpuSession& gpu, const TuneOptions& options) {
  const auto found = std::find_if(winners.begin(), winners.end(), [&](const Winner& winner) {
    return winner.problem == workload.problem && winner.m == workload.m;
  });
  if (found == winners.end()) {
    throw Error(ErrorCode::kNotFound,
                fmt::format("the chain needs a winner tuned for {}. Tune it, or leave it out.",
                            to_string(workload)));
  }
  Compilation compilation;
  compilation.key = found->compilation_key;
  compilation.cubin = image.cubins.at(found->compilation_key);
  return {&*found, &gpu.load(compilation, found->footprint),
          std::make_unique<Operands>(workload.problem, workload.m, options.device.l2_bytes,
                                     options.protocol)};
}

Chain bench_chain(const std::vector<Workload>& workloads, const std::vector<Winner>& winners,
                  const Image& image, GpuSession& gpu, const TuneOptions& options) {
  std::vector<Link> links;
  double estimate_us = 0.0;
  int copies = 0;  // each layer walks through its own copies of its weight
  for (const Workload& workload : workloads) {
    links.push_back(link_of(workload, winners, image, gpu, options));
    estimate_us += links.back().winner->time_us_median;
    copies = std::max(copies, links.back().operands->copies());
  }
  gpu.reset_counters();
  const auto round = [&](bool dependent) {
    return [&, dependent](CUstream stream, int copy) {
      for (const Link& link : links) {
        gpu.launch_gemm(*link.kernel, link.winner->problem, link.winner->candidate.schedule,
                        link.operands->args(link.winner->m, copy % link.operands->copies()), stream,
                        dependent);
      }
    };
  };
  MeasuredGraph plain(gpu.stream(), gpu.clock(), options.protocol, copies, estimate_us,
                      round(false));
  MeasuredGraph dependent(gpu.stream(), gpu.clock(), options.protocol, copies, estimate_us,
                          round(true));
  plain.sample();  // uploads the graphs, warms up
  dependent.sample();
  const std::vector<Samples> samples =
      sample_interleaved({&plain, &dependent}, options.protocol.final_samples);
  return {workloads, samples[0].time_us, samples[1].time_us};
}

}  // namespace

TuneResult bench_winners(const std::string& path, const TuneOptions& options,
                         const std::function<bool(const Winner&)>& wanted,
                         const std::vector<std::vector<Workload>>& chains, TuneObserver& observer) {
  const Image image = load_image(path, [&](const DeviceInfo& device) {
    return device.name == options.device.name && device.sm == options.device.sm &&
           device.sm_count == options.device.sm_count;
  });
  std::vector<Winner> winners;
  if (!image.devices.empty()) {
    const auto& all = image.devices.front().winners;
    std::copy_if(all.begin(), all.end(), std::back_inserter(winners), wanted);
  }
  if (winners.empty()) {
    throw Error(
        ErrorCode::kNotFound,
        fmt::format("{} has no winner to bench for {}. Run 'w4tune --gpu auto --db {}' first.",
                    path, options.device.name, path));
  }
  std::size_t workspace_bytes = options.max_workspace_bytes;
  for (const Winner& winner : winners) {
    const LaunchPlan plan =
        make_launch_plan(winner.footprint, winner.problem, winner.m, winner.candidate.schedule);
    workspace_bytes = std::max(workspace_bytes, plan.partial_bytes);
  }
  GpuSession gpu(options.ordinal, workspace_bytes, utility_image(image));
  TuneResult result;
  result.mma_denormals = image.devices.front().info.mma_denormals;
  observer.on_phase("measuring copy bandwidth and matrix rate");
  result.ceilings = probe_ceilings(options.device, gpu.utilities(), gpu.stream());
  observer.on_ceilings(result.ceilings);
  std::unique_ptr<ProblemOperands> data;
  for (std::size_t i = 0; i < winners.size(); ++i) {
    if (options.interrupted()) {
      result.interrupted = true;
      break;
    }
    const Winner& winner = winners[i];
    if (!data || data->operands.problem() != winner.problem) {
      int max_m = 0;
      for (const Winner& other : winners) {
        if (other.problem == winner.problem) max_m = std::max(max_m, other.m);
      }
      data.reset();
      data = std::make_unique<ProblemOperands>(winner.problem, max_m, options, gpu);
    }
    const double floor =
        floor_us({winner.problem, winner.m}, result.ceilings.copy_gbps, result.ceilings.mma_tflops);
    observer.on_workload(i, winners.size(), {winner.problem, winner.m}, floor);
    result.rows.push_back(
        bench_one(winner, image.cubins.at(winner.compilation_key), *data, gpu, options, floor));
    observer.on_result(result.rows.back(), result);
  }
  data.reset();
  for (const std::vector<Workload>& chain : chains) {
    if (options.interrupted()) break;
    observer.on_phase("measuring a chain");
    result.chains.push_back(bench_chain(chain, image.devices.front().winners, image, gpu, options));
  }
  return result;
}

}  // namespace w4tune

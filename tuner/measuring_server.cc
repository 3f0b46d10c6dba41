#include "tuner/measuring_server.h"

#include <fmt/format.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <algorithm>
#include <csignal>
#include <limits>
#include <memory>
#include <optional>

#include "gpu/device.h"
#include "gpu/shared_library.h"
#include "tuner/baseline.h"
#include "tuner/channel.h"
#include "tuner/composite_run.h"
#include "tuner/gpu_session.h"
#include "tuner/measuring_messages.h"
#include "tuner/probe.h"
#include "tuner/run_off.h"
#include "w4tune/error.h"

namespace w4tune {
namespace {

// A candidate this much slower than the best is not sampled again.
constexpr double kHopeless = 2.0;
// Launches of the first look at a candidate, before its graph is made.
constexpr int kFirstLaunches = 3;

// What was opened.
struct OpenProblem {
  OpenProblem(const OpenRequest& request, const GpuSession& gpu, const Protocol& protocol)
      : operands(request.problem, request.max_m, request.l2_bytes, protocol),
        verifier(gpu.utilities(), operands, gpu.stream()) {
    if (request.baseline) baseline.emplace(operands, request.l2_bytes, protocol);
  }

  Operands operands;
  Verifier verifier;
  std::optional<BaselineOperands> baseline;
};

class MeasuringServer {
 public:
  explicit MeasuringServer(Channel& channel) : channel_(channel) {}

  nlohmann::json answer(const nlohmann::json& message) {
    const auto& name = message.at("ask").get_ref<const std::string&>();
    const nlohmann::json& body = message.at("body");
    if (name == BeginRequest::kName) return begin(body.get<BeginRequest>());
    if (name == ProbeRequest::kName) return probe(body.get<ProbeRequest>());
    if (name == OpenRequest::kName) return open(body.get<OpenRequest>());
    if (name == CheckRequest::kName) return check(body.get<CheckRequest>());
    if (name == MeasureRequest::kName) return measure(body.get<MeasureRequest>());
    if (name == ContestRequest::kName) return contest(body.get<ContestRequest>());
    throw Error(ErrorCode::kInternal, fmt::format("request '{}' is not known", name));
  }

  // Whether the context is past use: after some errors every later call fails.
  [[nodiscard]] bool broken() const {
    if (!gpu_) return false;
    try {
      gpu_->stream().synchronize();
      return false;
    } catch (const Error&) {
      return true;
    }
  }

 private:
  nlohmann::json begin(const BeginRequest& request) {
    if (!request.toolkit_folder.empty()) search_toolkit_in(request.toolkit_folder);
    protocol_ = request.protocol;
    ordinal_ = request.ordinal;
    gpu_ = std::make_unique<GpuSession>(request.ordinal, request.max_workspace_bytes,
                                        request.utility_image.data);
    return nullptr;
  }

  nlohmann::json probe(const ProbeRequest& request) {
    Probed probed;
    probed.mma_denormals = probe_mma_denormals(gpu().utilities(), gpu().stream());
    if (request.calibrate) {
      probed.calibration = probe_device(query_device(ordinal_), gpu(),
                                        [this](const std::string& /*what*/) { step(kNoKernel); });
    }
    return probed;
  }

  nlohmann::json open(const OpenRequest& request) {
    problem_.reset();  // first: there may be no room for two
    problem_ = std::make_unique<OpenProblem>(request, gpu(), protocol_);
    return nullptr;
  }

  nlohmann::json check(const CheckRequest& request) {
    step(0);
    return checked(load(request.kernel), request.kernel.candidate, request.m);
  }

  nlohmann::json measure(const MeasureRequest& request) {
    step(0);
    const Candidate& candidate = request.kernel.candidate;
    const LoadedKernel& kernel = load(request.kernel);
    Measurement measurement;
    measurement.error = checked(kernel, candidate, request.m);
    if (!is_correct(measurement.error)) return measurement;
    const double limit_us = kHopeless * request.best_us;
    step(0);
    if (const auto slow = first_look(kernel, candidate, request.m, limit_us)) {
      add(measurement.samples, *slow);
      return measurement;
    }
    const auto graph = graph_of(kernel, candidate, request.m, request.estimate_us);
    step(0);
    graph->sample();  // uploads the graph, warms up
    for (int i = 0; i < protocol_.search_samples; ++i) {
      step(0);
      const MeasuredGraph::Sample sample = graph->sample();
      add(measurement.samples, sample);
      if (sample.time_us > limit_us) break;
    }
    return measurement;
  }

  nlohmann::json contest(const ContestRequest& request) {
    Contest contest;
    std::vector<std::unique_ptr<MeasuredGraph>> graphs;
    std::vector<MeasuredGraph*> order;
    std::vector<int> steps;  // whose turn it is, by the order
    const auto enter = [&](MeasuredGraph& graph, int whose) {
      order.push_back(&graph);
      steps.push_back(whose);
    };
    for (const auto& [kernel, estimate_us] : request.kernels) {
      const auto index = static_cast<int>(graphs.size());
      step(index);
      graphs.push_back(graph_of(load(kernel), kernel.candidate, request.m, estimate_us));
      enter(*graphs.back(), index);
    }
    step(kCompositeStep);
    const auto composite = contending_composite(request, contest.composite);
    if (composite) enter(composite->graph(), kCompositeStep);
    step(kBaselineStep);
    std::unique_ptr<BaselineRun> baseline;
    if (request.baseline) {
      baseline = std::make_unique<BaselineRun>(gpu(), protocol_, problem().operands,
                                               problem().baseline.value(), request.m);
      enter(baseline->graph(), kBaselineStep);
    }
    gpu().reset_counters();
    const auto announce = [&](std::size_t i) { step(steps[i]); };
    sample_interleaved(order, 1, announce);  // uploads the graphs, warms up
    const std::size_t kernels = graphs.size();
    std::vector<Samples> samples = sample_in_rounds(kernels, order.size() - kernels,
                                                    protocol_.final_samples, [&](std::size_t i) {
                                                      announce(i);
                                                      return order[i]->sample();
                                                    });
    for (std::size_t i = 0; i < samples.size(); ++i) {
      if (steps[i] == kCompositeStep) {
        contest.composite.samples = std::move(samples[i]);
      } else if (steps[i] == kBaselineStep) {
        contest.baseline = std::move(samples[i]);
      } else {
        contest.kernels.push_back(std::move(samples[i]));
      }
    }
    if (baseline) contest.baseline_detail = baseline->detail();
    if (composite) {
      step(kCompositeStep);
      contest.composite.slice_rows = composite->slice_rows();
      contest.composite.scratch_bytes = composite->scratch_bytes();
      contest.composite.error = composite->check(problem().verifier, request.m);
    }
    return contest;
  }

  // Null, with the reason, where no composite can be the faster way.
  std::unique_ptr<CompositeRun> contending_composite(const ContestRequest& request,
                                                     Contest::Composite& outcome) {
    if (request.slice_rows.empty()) {
      outcome.left_out = "not asked for";
      return nullptr;
    }
    auto composite =
        fastest_composite(gpu(), protocol_, problem().operands, request.m, request.slice_rows);
    if (!composite) {
      outcome.left_out = "cuBLASLt has no algorithm for it";
    } else if (composite->search_us() > request.composite_limit_us) {
      outcome.left_out = fmt::format("slower: {:.2f} us", composite->search_us());
    } else {
      outcome.warning = complaint_about(*composite, request.composite_m);
      if (!outcome.warning.empty()) outcome.left_out = "its result is wrong";
    }
    return outcome.left_out.empty() ? std::move(composite) : nullptr;
  }

  // Where it is wrong; "" if it is right at each of `tokens`.
  std::string complaint_about(const CompositeRun& composite, const std::vector<int>& tokens) {
    for (const int m : tokens) {
      const ErrorMetrics error = composite.check(problem().verifier, m);
      if (is_correct(error)) continue;
      return fmt::format(
          "dequant_cublas in slices of {} rows is wrong at {} (error {:.2f} times the "
          "bound): passed over",
          composite.slice_rows(), to_string(Workload{problem().operands.problem(), m}),
          error.worst_ratio);
    }
    return {};
  }

  const LoadedKernel& load(const CompiledCandidate& kernel) {
    Compilation compilation;
    compilation.key = kernel.key;
    compilation.cubin = kernel.image.data;
    return gpu().load(compilation, kernel.footprint);
  }

  ErrorMetrics checked(const LoadedKernel& kernel, const Candidate& candidate, int m) {
    return gpu().check(kernel, candidate, problem().operands, problem().verifier, m);
  }

  // A graph of launches that walk through the copies of the weight.
  std::unique_ptr<MeasuredGraph> graph_of(const LoadedKernel& kernel, const Candidate& candidate,
                                          int m, double estimate_us) {
    const Operands& operands = problem().operands;
    return std::make_unique<MeasuredGraph>(gpu().stream(), gpu().clock(), protocol_,
                                           operands.copies(), estimate_us,
                                           launches(kernel, candidate.schedule, m));
  }

  LaunchOn launches(const LoadedKernel& kernel, Schedule schedule, int m) {
    return [this, &kernel, schedule, m](CUstream stream, int copy) {
      const Operands& operands = problem().operands;
      gpu().launch_gemm(kernel, operands.problem(), schedule, operands.args(m, copy), stream,
                        protocol_.dependent);
    };
  }

  // A few launches; their time where it is beyond the limit. Without more copies than launches they
  // find some of the weight in the L2, so a candidate is rather thought faster than it is.
  std::optional<MeasuredGraph::Sample> first_look(const LoadedKernel& kernel,
                                                  const Candidate& candidate, int m,
                                                  double limit_us) {
    Protocol few = protocol_;
    few.min_launches = kFirstLaunches;
    few.min_graph_us = 0.0;
    MeasuredGraph graph(gpu().stream(), gpu().clock(), few,
                        std::min(kFirstLaunches, problem().operands.copies()), 1.0,
                        launches(kernel, candidate.schedule, m));
    graph.sample();  // uploads the graph, warms up
    const MeasuredGraph::Sample sample = graph.sample();
    return sample.time_us > limit_us ? std::optional(sample) : std::nullopt;
  }

  static void add(Samples& samples, const MeasuredGraph::Sample& sample) {
    samples.time_us.push_back(sample.time_us);
    samples.clock_mhz.push_back(sample.clock_mhz);
  }

  // Says that it lives, and whose turn it is. That nobody listens shows when it waits for more.
  void step(int whose) { channel_.send({{"step", whose}}); }

  GpuSession& gpu() {
    if (!gpu_) throw Error(ErrorCode::kInternal, "the measuring process was not told to begin");
    return *gpu_;
  }
  OpenProblem& problem() {
    if (!problem_) throw Error(ErrorCode::kInternal, "the measuring process has no problem open");
    return *problem_;
  }

  Channel& channel_;
  Protocol protocol_;
  int ordinal_ = 0;
  std::unique_ptr<GpuSession> gpu_;
  std::unique_ptr<OpenProblem> problem_;
};

bool is_socket(int descriptor) {
  struct stat status {};
  return ::fstat(descriptor, &status) == 0 && S_ISSOCK(status.st_mode);
}

}  // namespace

int serve_measuring() {
  // A parent that died before this line has closed its end of the socket.
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (!is_socket(kMeasuringSocket)) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("{} is what 'w4tune tune' starts to measure. Run that instead.",
                            kMeasuringCommand));
  }
  Channel channel(kMeasuringSocket);
  MeasuringServer server(channel);
  while (true) {
    const Channel::Received request = channel.receive();
    if (request.status != Channel::Status::kDone) break;
    nlohmann::json answer;
    bool broken = false;
    try {
      answer = {{"answer", server.answer(request.message)}};
    } catch (const Error& error) {
      broken = server.broken();
      std::string text = error.what();
      // The remedy that follows, to start the process again, is the tuner's business.
      if (broken) text.resize(std::min(text.size(), text.find(". ")));
      answer = {{"error", text}, {"code", static_cast<int>(error.code())}, {"broken", broken}};
    }
    channel.send(answer);
    if (broken) std::_Exit(1);  // nothing is left to be destroyed in order
  }
  return 0;
}

}  // namespace w4tune

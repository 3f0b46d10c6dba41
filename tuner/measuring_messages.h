// What the tuner asks of its measuring process, and what that answers (tuner/channel.h carries it).
//
// {"ask": NAME, "body": request} is answered by {"answer": ...} or {"error": text, "code": n,
// "broken": the process can't go on}. Before it come notices {"step": n}: a sign of life, and whose
// turn it is: a kernel by its index, or one of the steps below. The process keeps the problem that
// was opened last and nothing else from one request to the next.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "core/calibration.h"
#include "core/launch_plan.h"
#include "core/problem.h"
#include "core/trial.h"
#include "tuner/measure.h"
#include "tuner/protocol.h"

namespace w4tune {

// Steps that are no kernel's.
inline constexpr int kNoKernel = -1;
inline constexpr int kCompositeStep = -2;
inline constexpr int kBaselineStep = -3;

// Text that need not be text.
struct Bytes {
  std::string data;
};

// Before all others: the GPU and how it measures. Answered by null.
struct BeginRequest {
  static constexpr std::string_view kName = "begin";
  int ordinal = 0;
  std::size_t max_workspace_bytes = 0;
  Protocol protocol;
  Bytes utility_image;
  std::string toolkit_folder;  // as search_toolkit_in() takes it
};

struct ProbeRequest {
  static constexpr std::string_view kName = "probe";
  bool calibrate = false;  // takes seconds
};
struct Probed {
  bool mma_denormals = false;
  Calibration calibration;  // where it was asked for
};

// Operands of a problem, in place of the last one's. Answered by null.
struct OpenRequest {
  static constexpr std::string_view kName = "open";
  Problem problem;
  int max_m = 0;
  std::size_t l2_bytes = 0;
  bool baseline = false;  // operands for cuBLASLt as well
};

struct CompiledCandidate {
  Candidate candidate;
  Footprint footprint;
  std::string key;  // of the compilation
  Bytes image;      // cubin or PTX
};

// Runs it once on the open problem and judges the result. Answered by ErrorMetrics.
struct CheckRequest {
  static constexpr std::string_view kName = "check";
  CompiledCandidate kernel;
  int m = 0;
};

// Checks it, and takes the samples of a search where it is right.
struct MeasureRequest {
  static constexpr std::string_view kName = "measure";
  CompiledCandidate kernel;
  int m = 0;
  double estimate_us = 0.0;
  double best_us = 0.0;  // so far: what is much slower is not sampled to the end
};
struct Measurement {
  ErrorMetrics error;
  Samples samples;  // none where the result is wrong
};

// Samples kernels, composite and baseline in turns.
struct ContestRequest {
  static constexpr std::string_view kName = "contest";
  struct Kernel {
    CompiledCandidate kernel;
    double estimate_us = 0.0;
  };
  std::vector<Kernel> kernels;
  int m = 0;
  std::vector<int> slice_rows;      // of composites that may take part; the fastest does
  double composite_limit_us = 0.0;  // beyond which it does not
  std::vector<int> composite_m;     // where it must be right
  bool baseline = false;
};
struct Contest {
  std::vector<Samples> kernels;
  struct Composite {
    std::string left_out;  // why it took no part; "" where it did
    std::string warning;   // about what it did wrong
    int slice_rows = 0;
    std::size_t scratch_bytes = 0;
    Samples samples;
    ErrorMetrics error;
  } composite;
  std::string baseline_detail;  // which algorithm it was
  Samples baseline;
};

// The conversions that nlohmann/json looks for.

inline void to_json(nlohmann::json& json, const Bytes& bytes) {
  json = nlohmann::json::binary({bytes.data.begin(), bytes.data.end()});
}
inline void from_json(const nlohmann::json& json, Bytes& bytes) {
  const auto& binary = json.get_binary();
  bytes.data.assign(binary.begin(), binary.end());
}
inline void to_json(nlohmann::json& json, const Problem& problem) { json = to_string(problem); }
inline void from_json(const nlohmann::json& json, Problem& problem) {
  problem = parse_problem(json.get<std::string>());
}
inline void to_json(nlohmann::json& json, const KernelConfig& config) { json = to_string(config); }
inline void from_json(const nlohmann::json& json, KernelConfig& config) {
  config = parse_kernel_config(json.get<std::string>());
}

NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Schedule, split_k, raster)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Candidate, config, schedule)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Footprint, row_tile, token_tile, depth_tile, threads, smem_bytes,
                                   cluster_split, token_map, dependent, persistent)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(ErrorMetrics, worst_ratio, relative_norm, max_abs)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Samples, time_us, clock_mhz)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Protocol, cold_factor, min_launches, min_graph_us,
                                   search_samples, final_samples, finalists, seed, dependent)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(ReadPoint, bytes_per_sm, gbps)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Calibration, method, measured_at, driver, clock_mhz, copy_gbps,
                                   read_gbps, read_curve, launch_us, dependent_launch_us,
                                   mma_tflops, mma_source, mma_sync_tflops, reduce_us,
                                   reduce_sm_gbps)

NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(BeginRequest, ordinal, max_workspace_bytes, protocol,
                                   utility_image, toolkit_folder)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(ProbeRequest, calibrate)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Probed, mma_denormals, calibration)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(OpenRequest, problem, max_m, l2_bytes, baseline)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(CompiledCandidate, candidate, footprint, key, image)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(CheckRequest, kernel, m)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(MeasureRequest, kernel, m, estimate_us, best_us)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Measurement, error, samples)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(ContestRequest::Kernel, kernel, estimate_us)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(ContestRequest, kernels, m, slice_rows, composite_limit_us,
                                   composite_m, baseline)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Contest::Composite, left_out, warning, slice_rows, scratch_bytes,
                                   samples, error)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Contest, kernels, composite, baseline_detail, baseline)

}  // namespace w4tune

#include "tuner/baseline.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/half.h"
#include "core/stats.h"
#include "w4tune/error.h"

namespace w4tune {
namespace {

std::vector<std::uint16_t> dequantised(const Problem& problem, const Buffer& nibbles,
                                       const Buffer& scales) {
  std::vector<std::uint8_t> packed(nibbles.size_bytes());
  nibbles.download(packed.data(), packed.size());
  std::vector<std::uint16_t> scale(scales.size_bytes() / 2);
  scales.download(scale.data(), scale.size() * 2);
  std::vector<std::uint16_t> weight(packed.size() * 2);
  const auto group = static_cast<std::size_t>(problem.group_size);
  for (std::size_t i = 0; i < weight.size(); ++i) {
    const int nibble = (packed[i / 2] >> (4 * (i % 2))) & 0xF;
    const float s = to_float(problem.dtype, scale[i / group]);  // k is whole groups
    weight[i] = from_float(problem.dtype, s * static_cast<float>(nibble - 8));
  }
  return weight;
}

}  // namespace

std::string baseline_name(const Problem& problem) {
  return fmt::format("cublaslt_{}", to_string(problem.dtype));
}

std::string baseline_type(const Problem& problem) {
  return problem.dtype == Dtype::kF16 ? "FP16" : "BF16";
}

std::string baseline_note(const Problem& problem) {
  if (problem.op != Op::kGeglu) return {};
  return fmt::format("{} GEMM of twice the rows, no activation", baseline_type(problem));
}

BaselineOperands::BaselineOperands(const Operands& operands, std::size_t l2_bytes,
                                   const Protocol& protocol) {
  const Problem& problem = operands.problem();
  const std::vector<std::uint16_t> weight =
      dequantised(problem, operands.nibbles(), operands.scales());
  copy_bytes_ = weight.size() * 2;
  const double wanted = protocol.cold_factor * static_cast<double>(l2_bytes);
  copies_ = 1 + static_cast<int>(std::ceil(wanted / static_cast<double>(copy_bytes_)));
  weights_ = Buffer(copy_bytes_ * static_cast<std::size_t>(copies_));
  for (int copy = 0; copy < copies_; ++copy) {
    weights_.upload(weight.data(), copy_bytes_, copy_bytes_ * static_cast<std::size_t>(copy));
  }
  y_ = Buffer(static_cast<std::size_t>(operands.max_m()) *
              static_cast<std::size_t>(weight_rows(problem)) * 2);
  workspace_ = Buffer(CublasLtProduct::kDefaultWorkspaceBytes);
}

const void* BaselineOperands::weight(int copy) const {
  return weights_.as<char>() + copy_bytes_ * static_cast<std::size_t>(copy);
}

BaselineRun::BaselineRun(const GpuSession& gpu, const Protocol& protocol, const Operands& operands,
                         const BaselineOperands& weights, int m)
    : gemm_({.m = m,
             .n = weight_rows(operands.problem()),
             .k = operands.problem().k,
             .dtype = operands.problem().dtype}) {
  double best = std::numeric_limits<double>::infinity();
  for (int i = 0; i < gemm_.size(); ++i) {
    const auto launch_on = [&, i](CUstream stream, int copy) {
      gemm_.run(i, operands.x().as<void>(), weights.weight(copy), weights.y(), weights.workspace(),
                stream);
    };
    try {
      auto graph = std::make_unique<MeasuredGraph>(gpu.stream(), gpu.clock(), protocol,
                                                   weights.copies(), 10.0, launch_on);
      graph->sample();  // uploads the graph, warms up
      std::vector<double> times;
      for (int s = 0; s < protocol.search_samples; ++s) times.push_back(graph->sample().time_us);
      if (median(times) >= best) continue;
      best = median(times);
      algorithm_ = i;
      graph_ = std::move(graph);
    } catch (const Error& error) {
      if (error.code() != ErrorCode::kDevice) throw;  // an algorithm that refuses is passed over
    }
  }
  if (!graph_) {
    throw Error(ErrorCode::kDevice,
                fmt::format("cuBLASLt runs none of its {} algorithms for M = {}. Tune with "
                            "--no-baseline.",
                            gemm_.size(), m));
  }
}

std::string BaselineRun::detail() const { return gemm_.describe(algorithm_); }

}  // namespace w4tune

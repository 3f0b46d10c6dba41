#include "templates/bulk_pipe.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/check.h"

namespace w4tune {
namespace {

// The searched parameters, in the order of the canonical text.
constexpr const char* kRowWarps = "row_warps";
constexpr const char* kDepthWarps = "depth_warps";
constexpr const char* kTokenTile = "token_tile";
constexpr const char* kDepthTile = "depth_tile";
constexpr const char* kStages = "stages";
constexpr const char* kMath = "math";
constexpr const char* kDequant = "dequant";
constexpr const char* kReduce = "reduce";
constexpr const char* kSplit = "split_k";
constexpr const char* kRaster = "raster";

constexpr int kMaxCluster = 8;  // CTAs; what every sm_90 GPU grants
constexpr int kWgmma = 1;       // a value of math

// One configuration with its derived sizes, named as in bulk_pipe.cuh.
struct Shape {
  int row_warps, depth_warps, token_tile, depth_tile, stages, math, dequant, reduce;
  int k;
  int group;  // 0: one scale per row

  [[nodiscard]] int row_tile() const { return 16 * row_warps; }
  [[nodiscard]] int tokens() const { return token_tile / 8; }
  [[nodiscard]] int units() const { return row_warps * tokens(); }
  [[nodiscard]] int threads() const { return 32 * row_warps * depth_warps + 32; }
  [[nodiscard]] int stage_weight_bytes() const { return row_tile() * depth_tile / 2; }
  [[nodiscard]] int stage_bytes() const {
    return stage_weight_bytes() + token_tile * depth_tile * 2;
  }
  // Ring or sums of the depth warps, partials from the cluster, barriers, and scales of all the
  // depth: a split needs less, but the same kernel serves every split.
  [[nodiscard]] int smem_bytes() const {
    constexpr int kBarrierBytes = 256;
    const int sums = depth_warps > 1 ? depth_warps * units() * 512 : 0;
    const int received = reduce == 1 ? (units() + kMaxCluster) * 512 : 0;
    const int scales = group == 0 ? 0 : row_warps * (k / group) * 32;
    return std::max(stages * stage_bytes(), sums) + received + kBarrierBytes + scales;
  }
  [[nodiscard]] int registers() const {
    const int sets = dequant == 1 && group != 0 ? 2 : 1;
    const int operands = math == kWgmma ? 40 : 24 + 8 * tokens();
    return std::min(255, 40 + 4 * tokens() * sets + operands);
  }
};

int group_parameter(const Problem& problem) {
  return problem.group_size == problem.k ? 0 : problem.group_size;
}

Shape shape_of(const KernelConfig& config, const Problem& problem) {
  return {config.at(kRowWarps),    config.at(kDepthWarps), config.at(kTokenTile),
          config.at(kDepthTile),   config.at(kStages),     config.at(kMath),
          config.at(kDequant),     config.at(kReduce),     problem.k,
          group_parameter(problem)};
}

int ceil_div(int a, int b) { return (a + b - 1) / b; }

// Rules of the template itself: what breaks them does not compile or does not run.
std::vector<Constraint> structural_constraints(const Problem& problem, const DeviceInfo& device) {
  const int k = problem.k;
  const int group = group_parameter(problem);
  const auto smem = static_cast<int>(device.smem_block_bytes);
  return {
      {"each warp takes whole 64-deep blocks of the weight layout",
       {kDepthWarps, kDepthTile},
       [](auto v) { return v[1] % (64 * v[0]) == 0; }},
      {"each warp takes whole groups",
       {kDepthWarps, kDepthTile},
       [group](auto v) { return group == 0 || v[1] / v[0] % group == 0; }},
      {"stages at multiples of 1024 bytes, from which the swizzle counts",
       {kRowWarps, kDepthTile},
       [](auto v) { return v[0] * (v[1] / 64) % 2 == 0; }},
      {"K must be a multiple of the depth tile",
       {kDepthTile},
       [k](auto v) { return k % v[0] == 0; }},
      {"four row warps make a warpgroup",
       {kRowWarps, kMath},
       [](auto v) { return v[1] != kWgmma || v[0] % 4 == 0; }},
      {"a scale per row is applied to the final sums, which is D1",
       {kDequant},
       [group](auto v) { return group != 0 || v[0] == 1; }},
      {"a cluster has at most 8 CTAs",
       {kReduce, kSplit},
       [](auto v) { return v[0] == 0 || v[1] <= kMaxCluster; }},
      {"shared memory of a block",
       {kRowWarps, kDepthWarps, kTokenTile, kDepthTile, kStages, kReduce},
       [=](auto v) {
         return Shape{v[0], v[1], v[2], v[3], v[4], 0, 1, v[5], k, group}.smem_bytes() <= smem;
       }},
  };
}

// Rules of experience: what breaks them can't win. Reasons say why.
std::vector<Constraint> pruning_constraints(const Workload& workload, const DeviceInfo& device,
                                            std::size_t max_workspace_bytes) {
  const Problem problem = workload.problem;
  const int m = workload.m;
  const int rows = weight_rows(problem);
  const int k = problem.k;
  const int padded = std::min(ceil_div(m, 8) * 8, 64);
  const int group = group_parameter(problem);
  const int sms = device.sm_count;
  const auto smem_sm = static_cast<int>(device.smem_sm_bytes);
  return {
      {"M in one token tile, or in tiles of 64",
       {kTokenTile},
       [padded](auto v) { return v[0] == padded; }},
      {"a row tile larger than N", {kRowWarps}, [rows](auto v) { return 16 * v[0] <= rows; }},
      {"4 to 16 warps: fewer leave schedulers idle, more leave no registers",
       {kRowWarps, kDepthWarps},
       [](auto v) { return v[0] * v[1] >= 4 && v[0] * v[1] <= 16; }},
      {"wgmma of 8 tokens is mostly overhead",
       {kTokenTile, kMath},
       [](auto v) { return v[1] != kWgmma || v[0] >= 16; }},
      {"with mma.sync, beyond 32 tokens wgmma is far ahead where it applies",
       {kRowWarps, kTokenTile, kMath},
       [](auto v) { return v[2] == kWgmma || v[1] <= 32 || v[0] < 4; }},
      {"with few tokens the scale on sums is cheaper (measured 10 %)",
       {kTokenTile, kDequant},
       [](auto v) { return v[1] == 1 || v[0] > 32; }},
      {"each share of the depth must fill its pipeline",
       {kDepthTile, kStages, kSplit},
       [k](auto v) { return k / v[0] / v[2] >= v[1]; }},
      {"only a split can be reduced through a cluster",
       {kReduce, kSplit},
       [](auto v) { return v[0] == 0 || v[1] > 1; }},
      // Measured on an H200: with one CTA an SM, clusters of 4 and 8 do not all find room at once.
      {"clusters of more than 2 need room for two CTAs on an SM",
       {kRowWarps, kDepthWarps, kTokenTile, kDepthTile, kStages, kReduce, kSplit},
       [=](auto v) {
         if (v[5] == 0 || v[6] <= 2) return true;
         const Shape shape{v[0], v[1], v[2], v[3], v[4], 0, 1, 1, k, group};
         return 2 * (shape.smem_bytes() + 1024) <= smem_sm;
       }},
      {"partials of the split exceed the workspace or half the weight's bytes",
       {kRowWarps, kTokenTile, kReduce, kSplit},
       [=](auto v) {
         if (v[3] == 1 || v[2] == 1) return true;
         const double tiles = static_cast<double>(ceil_div(rows, 16 * v[0])) * ceil_div(m, v[1]);
         const double bytes = tiles * v[3] * 16 * v[0] * v[1] * 4.0;
         return bytes <= static_cast<double>(max_workspace_bytes) &&
                bytes <= 0.5 * static_cast<double>(weight_bytes(problem));
       }},
      {"too few blocks to keep the SMs busy, or a split with nothing to fill",
       {kRowWarps, kTokenTile, kSplit},
       [=](auto v) {
         const int tiles = ceil_div(rows, 16 * v[0]) * ceil_div(m, v[1]);
         const bool fills = tiles * v[2] * 10 >= sms * 4;
         const bool needed = v[2] == 1 || tiles * (v[2] - 1) < sms * 2;
         return fills && needed;
       }},
  };
}

}  // namespace

std::string BulkPipe::why_not(const Problem& /*problem*/, const DeviceInfo& device) const {
  if (device.sm != 90) return "bulk copies with mbarriers and wgmma need compute capability 9.0";
  return {};
}

Space BulkPipe::space(const Workload& workload, const DeviceInfo& device,
                      std::size_t max_workspace_bytes) const {
  W4_CHECK(why_not(workload.problem, device).empty(), "ask why_not() first");
  std::vector<Constraint> constraints = structural_constraints(workload.problem, device);
  std::vector<Constraint> pruning = pruning_constraints(workload, device, max_workspace_bytes);
  std::move(pruning.begin(), pruning.end(), std::back_inserter(constraints));
  return Space({{kRowWarps, {1, 2, 4, 8}},
                {kDepthWarps, {1, 2, 4, 8, 16}},
                {kTokenTile, {8, 16, 24, 32, 40, 48, 56, 64}},
                {kDepthTile, {64, 128, 256, 512, 1024, 2048}},
                {kStages, {2, 3, 4, 6, 8, 12}},
                {kMath, {0, kWgmma}},
                {kDequant, {0, 1}},
                {kReduce, {0, 1}},
                {kSplit, {1, 2, 3, 4, 6, 8, 16}},
                {kRaster, {1}}},
               std::move(constraints));
}

Footprint BulkPipe::footprint(const KernelConfig& config, const Problem& problem) const {
  const Shape shape = shape_of(config, problem);
  Footprint footprint;
  footprint.row_tile = shape.row_tile();
  footprint.token_tile = shape.token_tile;
  footprint.depth_tile = shape.depth_tile;
  footprint.threads = shape.threads();
  footprint.smem_bytes = shape.smem_bytes();
  footprint.cluster_split = shape.reduce == 1;
  footprint.token_map = true;
  footprint.dependent = true;
  return footprint;
}

std::string BulkPipe::source(const KernelConfig& config, const Problem& problem) const {
  const Shape shape = shape_of(config, problem);
  return fmt::format(
      R"(#include "bulk_pipe.cuh"
struct Config {{
  using Element = w4::{};
  static constexpr int kRowWarps = {};
  static constexpr int kDepthWarps = {};
  static constexpr int kRowTile = {};
  static constexpr int kTokenTile = {};
  static constexpr int kDepthTile = {};
  static constexpr int kStages = {};
  static constexpr int kMath = {};
  static constexpr int kDequant = {};
  static constexpr int kReduce = {};
  static constexpr int kGroupSize = {};
  static constexpr bool kGeglu = {};
}};
extern "C" __global__ void __launch_bounds__(w4::num_threads<Config>(), 1)
w4_kernel(const __grid_constant__ w4::GemmArgs args,
          const __grid_constant__ w4::TensorMap tokens) {{
  w4::bulk_pipe<Config>(args, tokens);
}}
)",
      problem.dtype == Dtype::kF16 ? "F16" : "BF16", shape.row_warps, shape.depth_warps,
      shape.row_tile(), shape.token_tile, shape.depth_tile, shape.stages, shape.math, shape.dequant,
      shape.reduce, shape.group, problem.op == Op::kGeglu);
}

Cost BulkPipe::cost(const Candidate& candidate, const Workload& workload,
                    const DeviceInfo& device) const {
  const Problem& problem = workload.problem;
  const Shape shape = shape_of(candidate.config, problem);
  const double row_tiles = ceil_div(weight_rows(problem), shape.row_tile());
  const double token_tiles = ceil_div(workload.m, shape.token_tile);
  const double tiles = row_tiles * token_tiles;

  Work work;
  work.plan = make_launch_plan(footprint(candidate.config, problem), problem, workload.m,
                               candidate.schedule);
  work.registers = shape.registers();
  work.dram_bytes = bytes_moved(workload);
  const double weights = static_cast<double>(weight_bytes(problem) + scale_bytes(problem));
  work.l2_bytes = weights * token_tiles + row_tiles * 2.0 * workload.m * problem.k;
  work.mma_flops = tiles * 2.0 * shape.row_tile() * shape.token_tile * problem.k;
  work.in_flight_bytes = static_cast<double>(shape.stages) * shape.stage_weight_bytes();
  work.steps = problem.k / shape.depth_tile / work.plan.schedule.split_k;
  work.stages = shape.stages;

  // Issue slots of one 16-row fragment and one 16-deep step, as for mma_pipe (docs/kernels.md); a
  // wgmma is one whatever the tokens, and nobody issues copies but the producer.
  const double tokens = shape.tokens();
  const double dequant =
      (problem.dtype == Dtype::kF16 ? 9.0 : 11.0) + (shape.dequant == 0 ? 4.0 : 0.0);
  const double multiply = shape.math == kWgmma ? 2.0 : tokens + (tokens + 1.0) / 2.0;
  const double group_steps = shape.group == 0 ? 1e9 : shape.group / 16.0;
  const double promote = shape.dequant == 1 ? (4.0 * tokens + 8.0) / group_steps : 0.0;
  const double fragments = tiles * shape.row_warps * (problem.k / 16.0);
  const double warp_steps = tiles * shape.row_warps * shape.depth_warps *
                            (problem.k / static_cast<double>(shape.depth_tile));
  const double once =
      work.plan.grid * static_cast<double>(shape.row_warps * shape.depth_warps) * 300.0;
  work.warp_instructions =
      fragments * (dequant + multiply + promote + 3.0) + warp_steps * 30.0 + once;
  return predict(work, device, assumed_rates(device));
}

}  // namespace w4tune

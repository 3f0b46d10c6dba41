#include "templates/bulk_pipe.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/check.h"
#include "templates/tiling.h"
#include "templates/wgmma_text.h"

namespace w4tune {
namespace {

// The searched parameters, in the order of the canonical text.
constexpr const char* kRowWarps = "row_warps";
constexpr const char* kWarpRows = "warp_rows";
constexpr const char* kDepthWarps = "depth_warps";
constexpr const char* kTokenTile = "token_tile";
constexpr const char* kDepthTile = "depth_tile";
constexpr const char* kStages = "stages";
constexpr const char* kAhead = "ahead";
constexpr const char* kMath = "math";
constexpr const char* kDequant = "dequant";
constexpr const char* kReduce = "reduce";
constexpr const char* kSplit = "split_k";
constexpr const char* kRaster = "raster";

constexpr int kMaxCluster = 8;  // CTAs; what every sm_90 GPU grants
constexpr int kWgmma = 1;       // a value of math
constexpr int kByCluster = 1;   // a value of reduce

// One configuration with its derived sizes, named as in bulk_pipe.cuh.
struct Shape {
  int row_warps, warp_rows, depth_warps, token_tile, depth_tile, stages, ahead, math, dequant;
  int reduce;
  int k;
  int group;  // 0: one scale per row

  [[nodiscard]] int row_tile() const { return warp_rows * row_warps; }
  [[nodiscard]] int tokens() const { return token_tile / 8; }
  [[nodiscard]] int units() const { return row_tile() / 16 * tokens(); }
  [[nodiscard]] int threads() const { return 32 * row_warps * depth_warps + 32; }
  [[nodiscard]] bool direct() const { return ahead > 0; }  // weights straight to registers
  [[nodiscard]] int step_weight_bytes() const { return row_tile() * depth_tile / 2; }
  [[nodiscard]] int stage_bytes() const {
    return (direct() ? 0 : step_weight_bytes()) + token_tile * depth_tile * 2;
  }
  // Registers of a thread for the weights and scales of one turn of the loop.
  [[nodiscard]] int held() const {
    const int depth = ahead * (depth_tile / depth_warps);
    return depth / 64 * (warp_rows / 16) * 4 + (group == 0 ? 0 : depth / group);
  }
  // Ring or sums of the depth warps, partials from the cluster, barriers, and scales of all the
  // depth: a split needs less, but the same kernel serves every split.
  [[nodiscard]] int smem_bytes() const {
    constexpr int kBarrierBytes = 256;
    const int sums = depth_warps > 1 ? depth_warps * units() * 512 : 0;
    const int received = reduce == kByCluster ? (units() + kMaxCluster) * 512 : 0;
    const int scales = group == 0 || direct() ? 0 : row_tile() / 16 * (k / group) * 32;
    return std::max(stages * stage_bytes(), sums) + received + kBarrierBytes + scales;
  }
  // What the register file leaves a thread of one CTA: warps are spread over four schedulers.
  [[nodiscard]] int most_registers() const {
    constexpr int kFile = 65536;
    const int warps = ceil_div(threads() / 32, 4) * 4;
    return std::min(255, kFile / (warps * 32) / 8 * 8);
  }
  [[nodiscard]] int registers() const {
    const int sets = dequant != 0 && group != 0 ? 2 : 1;
    // With wgmma the compiler dequantises further ahead of what it holds.
    const int operands = math == kWgmma ? (direct() ? 56 : 24) : 24 + 8 * tokens();
    return std::min(255, 40 + 4 * tokens() * (warp_rows / 16) * sets + operands + held());
  }
};

Shape shape_of(const KernelConfig& config, const Problem& problem) {
  return {config.at(kRowWarps),
          config.at(kWarpRows),
          config.at(kDepthWarps),
          config.at(kTokenTile),
          config.at(kDepthTile),
          config.at(kStages),
          config.at(kAhead),
          config.at(kMath),
          config.at(kDequant),
          config.at(kReduce),
          problem.k,
          group_parameter(problem)};
}

// Rules of the template itself: what breaks them does not compile or does not run.
std::vector<Constraint> structural_constraints(const Problem& problem, const DeviceInfo& device) {
  const int k = problem.k;
  const int group = group_parameter(problem);
  const auto smem = static_cast<int>(device.smem_block_bytes);
  const std::string no_denormals = why_no_denormals(problem, device);
  return {
      {no_denormals.empty() ? "nibbles as denormals are for mma.sync" : no_denormals,
       {kMath, kDequant},
       [allowed = no_denormals.empty()](auto v) {
         return v[1] < 2 || (allowed && v[0] != kWgmma);
       }},
      {"each warp takes whole 64-deep blocks of the weight layout",
       {kDepthWarps, kDepthTile},
       [](auto v) { return v[1] % (64 * v[0]) == 0; }},
      {"each warp takes whole groups",
       {kDepthWarps, kDepthTile},
       [group](auto v) { return group == 0 || v[1] / v[0] % group == 0; }},
      {"stages at multiples of 1024 bytes, from which the swizzle counts",
       {kRowWarps, kWarpRows, kDepthTile, kAhead},
       [](auto v) { return v[3] > 0 || v[0] * v[1] / 16 * (v[2] / 64) % 2 == 0; }},
      {"K must be a multiple of the depth tile",
       {kDepthTile},
       [k](auto v) { return k % v[0] == 0; }},
      {"four row warps of 16 rows make a warpgroup",
       {kRowWarps, kWarpRows, kMath},
       [](auto v) { return v[2] != kWgmma || (v[0] % 4 == 0 && v[1] == 16); }},
      {"registers of a thread",
       {kRowWarps, kWarpRows, kDepthWarps, kTokenTile, kDepthTile, kAhead, kMath, kDequant},
       [=](auto v) {
         const Shape shape{v[0], v[1], v[2], v[3], v[4], 2, v[5], v[6], v[7], 0, k, group};
         return shape.registers() <= shape.most_registers();
       }},
      {"a scale per row is applied to the final sums, which is D1",
       {kDequant},
       [group](auto v) { return group != 0 || v[0] == 1; }},
      {"a cluster has at most 8 CTAs",
       {kReduce, kSplit},
       [](auto v) { return v[0] != kByCluster || v[1] <= kMaxCluster; }},
      {"shared memory of a block",
       {kRowWarps, kWarpRows, kDepthWarps, kTokenTile, kDepthTile, kStages, kAhead, kReduce},
       [=](auto v) {
         const Shape shape{v[0], v[1], v[2], v[3], v[4], v[5], v[6], 0, 1, v[7], k, group};
         return shape.smem_bytes() <= smem;
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
  const auto smem_sm = static_cast<int>(device.smem_sm_bytes);
  return {
      {"M in one token tile, in tiles of 64, or beyond 32 in tiles of 32",
       {kTokenTile},
       [padded](auto v) {
         return v[0] == padded || (padded > 32 && v[0] == 32) || (padded > 48 && v[0] == 64);
       }},
      {"a row tile larger than N",
       {kRowWarps, kWarpRows},
       [rows](auto v) { return v[0] * v[1] <= rows; }},
      {"64 rows a warp leave no registers for more than 16 tokens",
       {kWarpRows, kTokenTile},
       [](auto v) { return v[0] < 64 || v[1] <= 16; }},
      {"more than 256 rows a CTA leave SMs idle",
       {kRowWarps, kWarpRows},
       [](auto v) { return v[0] * v[1] <= 256; }},
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
       [](auto v) { return v[1] != 0 || v[0] > 32; }},
      {"nibbles as denormals pay where few tokens and many rows of a warp share the sums of x",
       {kWarpRows, kTokenTile, kAhead, kDequant},
       [](auto v) { return v[3] < 2 || (v[0] >= 32 && v[1] <= 16 && v[2] == 0); }},
      {"each share of the depth must fill its pipeline",
       {kDepthTile, kStages, kSplit},
       [k](auto v) { return k / v[0] / v[2] >= v[1]; }},
      // Turn by turn, latency shows: 12.6 us for 8.2 on 16384x2048 at M = 16.
      {"weights in registers pay where they are there as a whole",
       {kDepthTile, kAhead, kSplit},
       [k](auto v) { return v[1] == 0 || k / v[0] == v[1] * v[2]; }},
      {"weights under way in registers: too few to hide a read, or more code than is fast",
       {kWarpRows, kDepthWarps, kDepthTile, kAhead},
       [](auto v) {
         const int fragments = v[3] * (v[2] / v[1] / 64) * (v[0] / 16);
         return v[3] == 0 || (fragments >= 2 && fragments <= 16);
       }},
      {"only a split can be reduced through a cluster",
       {kReduce, kSplit},
       [](auto v) { return v[0] == 0 || v[1] > 1; }},
      // Measured on an H200: with one CTA an SM, clusters of 4 and 8 do not all find room at once.
      {"clusters of more than 2 need room for two CTAs on an SM",
       {kRowWarps, kWarpRows, kDepthWarps, kTokenTile, kDepthTile, kStages, kAhead, kReduce,
        kSplit},
       [=](auto v) {
         if (v[7] != kByCluster || v[8] <= 2) return true;
         const Shape shape{v[0], v[1], v[2], v[3], v[4], v[5], v[6], 0, 1, kByCluster, k, group};
         return 2 * (shape.smem_bytes() + 1024) <= smem_sm;
       }},
      {"partials of the split exceed the workspace or half the weight's bytes",
       {kRowWarps, kWarpRows, kTokenTile, kReduce, kSplit},
       [=](auto v) {
         return v[4] == 1 || v[3] == kByCluster ||
                partials_fit(workload, v[0] * v[1], v[2], v[4], max_workspace_bytes);
       }},
      {"too few blocks to keep the SMs busy, or a split with nothing to fill",
       {kRowWarps, kWarpRows, kTokenTile, kSplit},
       [=](auto v) { return fills_sms(workload, device, v[0] * v[1], v[2], v[3], 2); }},
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
  return Space({{kRowWarps, {1, 2, 4, 8, 16}},
                {kWarpRows, {16, 32, 64}},
                {kDepthWarps, {1, 2, 4, 8, 16}},
                {kTokenTile, {8, 16, 24, 32, 40, 48, 56, 64}},
                {kDepthTile, {64, 128, 256, 512, 1024, 2048}},
                {kStages, {2, 3, 4, 6, 8, 12}},
                {kAhead, {0, 2, 4, 8}},
                {kMath, {0, kWgmma}},
                {kDequant, {0, 1, 3}},
                {kReduce, {0, kByCluster}},
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
  footprint.cluster_split = shape.reduce == kByCluster;
  footprint.token_map = true;
  footprint.dependent = true;
  return footprint;
}

std::string BulkPipe::source(const KernelConfig& config, const Problem& problem) const {
  const Shape shape = shape_of(config, problem);
  return fmt::format(
      R"(#include "bulk_pipe.cuh"
{}struct Config {{
  using Element = w4::{};
  static constexpr int kRowWarps = {};
  static constexpr int kWarpRows = {};
  static constexpr int kDepthWarps = {};
  static constexpr int kRowTile = {};
  static constexpr int kTokenTile = {};
  static constexpr int kDepthTile = {};
  static constexpr int kStages = {};
  static constexpr int kAhead = {};
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
      shape.math == kWgmma ? wgmma_text(shape.token_tile, problem.dtype) : "",
      element_name(problem.dtype), shape.row_warps, shape.warp_rows, shape.depth_warps,
      shape.row_tile(), shape.token_tile, shape.depth_tile, shape.stages, shape.ahead, shape.math,
      shape.dequant, shape.reduce, shape.group, problem.op == Op::kGeglu);
}

Cost BulkPipe::cost(const Candidate& candidate, const Workload& workload,
                    const DeviceInfo& device) const {
  const Problem& problem = workload.problem;
  const Shape shape = shape_of(candidate.config, problem);
  const double row_tiles = ceil_div(weight_rows(problem), shape.row_tile());
  const double tiles = row_tiles * ceil_div(workload.m, shape.token_tile);

  Work work = tiled_work(footprint(candidate.config, problem), candidate, workload);
  work.registers = shape.registers();
  // What goes straight to registers is under way as a whole.
  work.in_flight_bytes = static_cast<double>(shape.direct() ? shape.ahead : shape.stages) *
                         static_cast<double>(shape.step_weight_bytes());
  work.steps = problem.k / shape.depth_tile / work.plan.schedule.split_k;
  work.stages = shape.stages;

  // Issue slots of one 16-row fragment and one 16-deep step, as for mma_pipe (docs/kernels.md); a
  // wgmma is one whatever the tokens, and nobody issues copies but the producer.
  const Rates rates = rates_of(device);
  const double tokens = shape.tokens();
  const double dequant = dequant_instructions(shape.dequant, problem.dtype);
  // A wgmma with weights from registers keeps its schedulers from issuing for 13 cycles, however
  // few the tokens (measured, docs/kernels.md).
  const double loads = (tokens + 1.0) / 2.0 / (shape.warp_rows / 16.0);
  // The sums of x are one more product for each token fragment, for all rows of a warp.
  const double sums_of_x = shape.dequant == 3 ? 16.0 / shape.warp_rows : 0.0;
  const double multiply =
      shape.math == kWgmma ? 13.0 : rates.mma_slots * tokens * (1.0 + sums_of_x) + loads;
  const double group_steps = shape.group == 0 ? 1e9 : shape.group / 16.0;
  const double settling = shape.dequant == 3 ? 6.0 * tokens : 0.0;
  const double promote = shape.dequant != 0 ? (4.0 * tokens + settling + 8.0) / group_steps : 0.0;
  const double fragments = tiles * shape.row_tile() / 16.0 * (problem.k / 16.0);
  const double warp_steps = tiles * shape.row_warps * shape.depth_warps *
                            (problem.k / static_cast<double>(shape.depth_tile));
  const double once =
      work.plan.grid * static_cast<double>(shape.row_warps * shape.depth_warps) * 300.0;
  work.warp_instructions =
      fragments * (dequant + multiply + promote + 3.0) + warp_steps * 30.0 + once;
  return predict(work, device, rates);
}

}  // namespace w4tune

#include "templates/mma_pipe.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "core/check.h"
#include "templates/tiling.h"

namespace w4tune {
namespace {

// The searched parameters, in the order of the canonical text.
constexpr const char* kRowTile = "row_tile";
constexpr const char* kTokenTile = "token_tile";
constexpr const char* kDepthTile = "depth_tile";
constexpr const char* kStages = "stages";
constexpr const char* kRowWarps = "row_warps";
constexpr const char* kTokenWarps = "token_warps";
constexpr const char* kDepthWarps = "depth_warps";
constexpr const char* kDequant = "dequant";
constexpr const char* kReduce = "reduce";
constexpr const char* kEvictFirst = "evict_first";
constexpr const char* kSplit = "split_k";
constexpr const char* kRaster = "raster";

constexpr int kMostTokens = 128;

// One configuration with its derived sizes, named as in mma_pipe.cuh.
struct Shape {
  int row_tile, token_tile, depth_tile, stages, row_warps, token_warps, depth_warps, dequant,
      reduce, evict_first;
  int group;  // 0: one scale per row
  bool geglu;

  [[nodiscard]] int warps() const { return row_warps * token_warps * depth_warps; }
  [[nodiscard]] int rows() const { return row_tile / 16 / row_warps; }       // fragments a warp
  [[nodiscard]] int tokens() const { return token_tile / 8 / token_warps; }  // fragments a warp
  [[nodiscard]] int stage_weight_bytes() const { return row_tile * depth_tile / 2; }
  [[nodiscard]] int stage_bytes() const {
    const int groups = group == 0 ? 0 : std::max(1, depth_tile / group);
    return stage_weight_bytes() + token_tile * depth_tile * 2 + row_tile * groups * 2;
  }
  // The pipeline's buffers; the epilogue reuses them for the sums that depth warps or a cluster
  // exchange, and for the output tile.
  [[nodiscard]] int smem_bytes() const {
    const int pipeline = stages * stage_bytes();
    const int copies = depth_warps > 1 ? depth_warps : reduce == 1 ? 1 : 0;
    const int depth_sums = copies * row_tile * token_tile * 4;
    const int output = token_tile * ((geglu ? row_tile / 2 : row_tile) + 8) * 2;
    return std::max({pipeline, depth_sums, output});
  }
  // Four accumulators each: of the outputs; once more of a group's sums unless the scale is on the
  // weights; and under D2den and D4 of the tokens.
  [[nodiscard]] int accumulator_fragments() const {
    const int sets = dequant != 0 && group != 0 ? 2 : 1;
    return rows() * tokens() * sets + (dequant >= 2 ? tokens() : 0);
  }
  // Accumulators, operands, addresses. Fitted to ptxas for sm_86: within 20 % on the configurations
  // of tests/nvrtc.
  [[nodiscard]] int registers() const {
    return std::min(255, 40 + 4 * accumulator_fragments() + 8 * rows() + 2 * tokens());
  }
};

Shape shape_of(const KernelConfig& config, const Problem& problem) {
  return {config.at(kRowTile),    config.at(kTokenTile),    config.at(kDepthTile),
          config.at(kStages),     config.at(kRowWarps),     config.at(kTokenWarps),
          config.at(kDepthWarps), config.at(kDequant),      config.at(kReduce),
          config.at(kEvictFirst), group_parameter(problem), problem.op == Op::kGeglu};
}

// Rules of the template itself: what breaks them does not compile.
std::vector<Constraint> structural_constraints(const Problem& problem, const DeviceInfo& device) {
  const int k = problem.k;
  const int group = group_parameter(problem);
  const bool geglu = problem.op == Op::kGeglu;
  const auto smem = static_cast<int>(device.smem_block_bytes);
  const std::string no_denormals = why_no_denormals(problem, device);
  return {
      {"each warp takes whole 16-row fragments",
       {kRowTile, kRowWarps},
       [](auto v) { return v[0] % (16 * v[1]) == 0; }},
      {"each warp takes whole 8-token fragments",
       {kTokenTile, kTokenWarps},
       [](auto v) { return v[0] % (8 * v[1]) == 0; }},
      {"each warp takes whole 64-deep blocks of the weight layout",
       {kDepthTile, kDepthWarps},
       [](auto v) { return v[0] % (64 * v[1]) == 0; }},
      {"a pass of all threads over the activations covers whole tokens",
       {kDepthTile, kRowWarps, kTokenWarps, kDepthWarps},
       [](auto v) { return 32 * v[1] * v[2] * v[3] % (v[0] / 8) == 0; }},
      {"K must be a multiple of the depth tile",
       {kDepthTile},
       [k](auto v) { return k % v[0] == 0; }},
      {"a scale per row is applied to the final sums, which is D1",
       {kDequant},
       [group](auto v) { return group != 0 || v[0] == 1; }},
      {no_denormals,
       {kDequant},
       [allowed = no_denormals.empty()](auto v) { return allowed || v[0] < 2; }},
      {"shared memory of a block",
       {kRowTile, kTokenTile, kDepthTile, kStages, kRowWarps, kTokenWarps, kDepthWarps},
       [smem, group, geglu](auto v) {
         return Shape{v[0], v[1], v[2], v[3], v[4], v[5], v[6], 0, 0, 0, group, geglu}
                    .smem_bytes() <= smem;
       }},
  };
}

// Rules of experience: what breaks them can't win. Reasons say why.
std::vector<Constraint> pruning_constraints(const Workload& workload, const DeviceInfo& device,
                                            std::size_t max_workspace_bytes) {
  const Problem problem = workload.problem;
  const int m = workload.m;
  const int rows = weight_rows(problem);
  const int padded = ceil_div(m, 8) * 8;
  const int group = group_parameter(problem);
  return {
      {"many tokens: mma_tile dequantises a weight less often",
       {kTokenTile},
       [m](auto) { return m <= kMostTokens; }},
      {"a token tile wider than M computes padding",
       {kTokenTile},
       [padded](auto v) { return v[0] <= padded || v[0] == 8; }},
      {"narrow token tiles re-read the weights too often",
       {kTokenTile},
       [padded](auto v) { return v[0] >= std::min(padded, 64) * 3 / 4; }},
      {"token padding above 15 %",
       {kTokenTile},
       [padded](auto v) { return ceil_div(padded, v[0]) * v[0] * 100 <= padded * 115; }},
      {"a row tile larger than the weight", {kRowTile}, [rows](auto v) { return v[0] <= rows; }},
      {"4 to 16 warps: fewer leave schedulers idle, more leave no registers",
       {kRowWarps, kTokenWarps, kDepthWarps},
       [](auto v) {
         const int warps = v[0] * v[1] * v[2];
         return warps >= 4 && warps <= 16;
       }},
      {"accumulators of a warp spill or leave the tensor cores idle",
       {kRowTile, kTokenTile, kRowWarps, kTokenWarps, kDequant},
       [group](auto v) {
         const Shape shape{v[0], v[1], 0, 0, v[2], v[3], 1, v[4], 0, 0, group, false};
         // 13 fragments are a row tile of 208 whose warps share the depth.
         return (shape.rows() <= 8 || shape.rows() == 13) && shape.accumulator_fragments() <= 28;
       }},
      {"scales on sums pay off only up to 8 token fragments a warp",
       {kTokenTile, kTokenWarps, kDequant},
       [group](auto v) { return group == 0 || v[2] == 0 || v[0] / 8 / v[1] <= 8; }},
      {"with few tokens a warp, scales on sums are cheaper than on weights",
       {kTokenTile, kTokenWarps, kDequant},
       [](auto v) { return v[2] != 0 || v[0] / 8 / v[1] >= 2; }},
      {"warps along the depth are for few tokens",
       {kTokenTile, kDepthWarps},
       [](auto v) { return v[1] == 1 || v[0] <= 64; }},
      {"warps along the tokens dequantise twice",
       {kTokenTile, kTokenWarps},
       [](auto v) { return v[1] == 1 || v[0] / v[1] >= 16; }},
      {"each share of the depth must fill its pipeline",
       {kDepthTile, kStages, kSplit},
       [k = problem.k](auto v) { return k / v[0] >= v[2] * (v[1] - 1); }},
      {"partials of the split exceed the workspace or half the weight's bytes",
       {kRowTile, kTokenTile, kSplit, kReduce},
       [=](auto v) {
         return v[2] == 1 || v[3] == 1 ||
                partials_fit(workload, v[0], v[1], v[2], max_workspace_bytes);
       }},
      // Measured on an H200: splits of 4 and 8 are 0.3 to 0.9 us slower through a cluster.
      {"reducing through a cluster pays for a split of 2 alone",
       {kReduce, kSplit},
       [](auto v) { return v[0] == 0 || v[1] == 2; }},
      {"too few blocks to keep the SMs busy, or a split with nothing to fill",
       {kRowTile, kTokenTile, kSplit},
       [=](auto v) { return fills_sms(workload, device, v[0], v[1], v[2], 4); }},
      {"a raster wider than the row tiles repeats a narrower one",
       {kRowTile, kTokenTile, kRaster},
       [=](auto v) { return raster_differs(workload, v[0], v[1], v[2]); }},
  };
}

}  // namespace

std::string MmaPipe::why_not(const Problem& /*problem*/, const DeviceInfo& device) const {
  if (device.sm < 80) return "mma.sync m16n8k16 and cp.async need compute capability 8.0";
  return {};
}

Space MmaPipe::space(const Workload& workload, const DeviceInfo& device,
                     std::size_t max_workspace_bytes) const {
  W4_CHECK(why_not(workload.problem, device).empty(), "ask why_not() first");
  // On the 84 SMs of the GPUs with sm_86, 16384 rows are 79 tiles of 208: 94 % are at work, of
  // tiles of 128 or 256 76 %. The L2 hint: see evict_first_policy in device/ptx.cuh.
  const bool before_hopper = device.sm < 90;
  const auto values = [&](std::vector<int> all, std::vector<int> hopper) {
    return before_hopper ? std::move(all) : std::move(hopper);
  };
  std::vector<Parameter> parameters = {
      {kRowTile, values({16, 32, 64, 128, 208, 256}, {16, 32, 64, 128, 256})},
      {kTokenTile, {8, 16, 24, 32, 56, 64}},
      {kDepthTile, {64, 128, 256, 512}},
      {kStages, {2, 3, 4, 6, 8}},
      {kRowWarps, values({1, 2, 4, 8, 13}, {1, 2, 4, 8})},
      {kTokenWarps, {1, 2, 4}},
      {kDepthWarps, {1, 2, 4, 8}},
      {kDequant, {0, 1, 2, 3}},
      {kReduce, values({0}, {0, 1})},
      {kEvictFirst, values({0, 1}, {0})},
      {kSplit, {1, 2, 3, 4, 5, 6, 8, 12, 16}},
      {kRaster, {1, 4, 16}},
  };
  std::vector<Constraint> constraints = structural_constraints(workload.problem, device);
  std::vector<Constraint> pruning = pruning_constraints(workload, device, max_workspace_bytes);
  std::move(pruning.begin(), pruning.end(), std::back_inserter(constraints));
  return Space(std::move(parameters), std::move(constraints));
}

KernelConfig MmaPipe::without_hints(const KernelConfig& config) const {
  KernelConfig plain = config;
  for (auto& [name, value] : plain.parameters) {
    if (name == kEvictFirst) value = 0;
  }
  return plain;
}

Footprint MmaPipe::footprint(const KernelConfig& config, const Problem& problem) const {
  const Shape shape = shape_of(config, problem);
  Footprint footprint;
  footprint.row_tile = shape.row_tile;
  footprint.token_tile = shape.token_tile;
  footprint.depth_tile = shape.depth_tile;
  footprint.threads = 32 * shape.warps();
  footprint.smem_bytes = shape.smem_bytes();
  footprint.cluster_split = shape.reduce == 1;
  footprint.dependent = true;
  return footprint;
}

std::string MmaPipe::source(const KernelConfig& config, const Problem& problem) const {
  const Shape shape = shape_of(config, problem);
  return fmt::format(
      R"(#include "mma_pipe.cuh"
struct Config {{
  using Element = w4::{};
  static constexpr int kRowTile = {};
  static constexpr int kTokenTile = {};
  static constexpr int kDepthTile = {};
  static constexpr int kStages = {};
  static constexpr int kRowWarps = {};
  static constexpr int kTokenWarps = {};
  static constexpr int kDepthWarps = {};
  static constexpr int kDequant = {};
  static constexpr int kReduce = {};
  static constexpr bool kEvictFirst = {};
  static constexpr int kGroupSize = {};
  static constexpr bool kGeglu = {};
}};
extern "C" __global__ void __launch_bounds__(w4::num_threads<Config>(), 1)
w4_kernel(const __grid_constant__ w4::GemmArgs args) {{
  w4::mma_pipe<Config>(args);
}}
)",
      element_name(problem.dtype), shape.row_tile, shape.token_tile, shape.depth_tile, shape.stages,
      shape.row_warps, shape.token_warps, shape.depth_warps, shape.dequant, shape.reduce,
      shape.evict_first == 1, shape.group, shape.geglu);
}

Cost MmaPipe::cost(const Candidate& candidate, const Workload& workload,
                   const DeviceInfo& device) const {
  const Problem& problem = workload.problem;
  const Shape shape = shape_of(candidate.config, problem);
  const double row_tiles = ceil_div(weight_rows(problem), shape.row_tile);
  const double tiles = row_tiles * ceil_div(workload.m, shape.token_tile);

  Work work = tiled_work(footprint(candidate.config, problem), candidate, workload);
  work.registers = shape.registers();
  // D2den and D4 multiply a fragment of ones with the tokens as well.
  const double sums_of_x = shape.dequant >= 2 ? 1.0 / shape.rows() : 0.0;
  work.mma_flops *= 1.0 + sums_of_x;
  work.in_flight_bytes = (shape.stages - 1.0) * shape.stage_weight_bytes();
  work.steps = problem.k / shape.depth_tile / work.plan.schedule.split_k;
  work.stages = shape.stages;

  // Issue slots for one 16-row fragment and one depth step of 16 in one warp (docs/kernels.md):
  // dequantisation, MMAs, ldmatrix (one per two token fragments, shared by the warp's rows),
  // weights.
  const Rates rates = rates_of(device);
  const double tokens = shape.tokens();
  const double dequant = dequant_instructions(shape.dequant, problem.dtype);
  // A group's sums onto the outputs: one FMA for each, and what settles the offset.
  constexpr std::array kPromotion = {0.0, 4.0, 8.0, 10.0};
  const double promotion = kPromotion.at(static_cast<std::size_t>(shape.dequant));
  const double group_steps = std::min(shape.group, shape.depth_tile / shape.depth_warps) / 16.0;
  const double promote =
      promotion > 0.0 && shape.group != 0 ? (promotion * tokens + 4.0) / group_steps : 0.0;
  const double per_fragment = dequant + rates.mma_slots * tokens * (1.0 + sums_of_x) + promote +
                              0.5 + ((tokens + 1.0) / 2.0 + 2.0) / shape.rows();
  const double fragments = tiles * (shape.row_tile / 16.0) * shape.token_warps * (problem.k / 16.0);
  // Fetching: one cp.async with its address arithmetic for each 16 bytes, 32 lanes an instruction.
  const double fetches = tiles * (problem.k / static_cast<double>(shape.depth_tile)) *
                         shape.stage_bytes() / 512.0 * 4.0;
  // Barrier and waits of each step, felt by every warp.
  const double steps =
      tiles * (problem.k / static_cast<double>(shape.depth_tile)) * shape.warps() * 30.0;
  work.warp_instructions = fragments * per_fragment + fetches + steps;
  return predict(work, device, rates);
}

}  // namespace w4tune

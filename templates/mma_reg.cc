#include "templates/mma_reg.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/check.h"
#include "templates/tiling.h"

namespace w4tune {
namespace {

// The searched parameters, in the order of the canonical text.
constexpr const char* kRowTile = "row_tile";
constexpr const char* kTokenTile = "token_tile";
constexpr const char* kDepthWarps = "depth_warps";
constexpr const char* kBlocks = "blocks";
constexpr const char* kAhead = "ahead";
constexpr const char* kDequant = "dequant";
constexpr const char* kSplit = "split_k";
constexpr const char* kRaster = "raster";

constexpr int kMostTokens = 64;  // beyond, x no longer fits beside the weights in registers
constexpr double kRegistersPerSm = 65536.0;

// One configuration with its derived sizes, named as in mma_reg.cuh.
struct Shape {
  int row_tile, token_tile, depth_warps, blocks, ahead;

  [[nodiscard]] int rows() const { return row_tile / 16; }
  [[nodiscard]] int tokens() const { return token_tile / 8; }
  [[nodiscard]] int depth_tile() const { return 64 * blocks * depth_warps; }
  [[nodiscard]] int threads() const { return 32 * depth_warps; }
  [[nodiscard]] int smem_bytes() const {
    constexpr int kVoteBytes = 16;
    const int slice = token_tile * blocks * 128;
    const int sums = rows() * tokens() * 512;
    return depth_warps * std::max(slice, sums) + kVoteBytes;
  }
  // Weights under way, two sets of sums, the tokens of a block, and what addresses take.
  [[nodiscard]] int registers() const {
    return 56 + 4 * rows() * ahead + 8 * rows() * tokens() + 8 * tokens();
  }
};

Shape shape_of(const KernelConfig& config) {
  return {config.at(kRowTile), config.at(kTokenTile), config.at(kDepthWarps), config.at(kBlocks),
          config.at(kAhead)};
}

std::vector<Constraint> constraints(const Workload& workload, const DeviceInfo& device,
                                    std::size_t max_workspace_bytes) {
  const Problem problem = workload.problem;
  const int m = workload.m;
  const int padded = ceil_div(m, 8) * 8;
  const int rows = weight_rows(problem);
  const int k = problem.k;
  const auto smem = static_cast<int>(device.smem_block_bytes);
  return {
      {"K must be a multiple of what the warps of a step take",
       {kDepthWarps, kBlocks},
       [k](auto v) { return k % (64 * v[0] * v[1]) == 0; }},
      {"the ring of weights and the blocks of a step must turn together",
       {kBlocks, kAhead},
       [](auto v) { return v[1] % v[0] == 0 || v[0] % v[1] == 0; }},
      {"more ahead than a warp's share of the depth has blocks",
       {kDepthWarps, kAhead, kSplit},
       [k](auto v) { return v[1] <= std::max(1, k / 64 / v[0] / v[2]); }},
      {"shared memory of a block",
       {kRowTile, kTokenTile, kDepthWarps, kBlocks},
       [smem](auto v) {
         return Shape{v[0], v[1], v[2], v[3], 1}.smem_bytes() <= smem;
       }},
      {"registers of a block: the compiler would spill",
       {kRowTile, kTokenTile, kDepthWarps, kAhead},
       [](auto v) {
         const Shape shape{v[0], v[1], v[2], 1, v[3]};
         return shape.registers() <= std::min(255.0, kRegistersPerSm / shape.threads());
       }},
      {"a token tile wider than M computes padding",
       {kTokenTile},
       [padded](auto v) { return v[0] <= padded; }},
      {"narrow token tiles re-read the weights",
       {kTokenTile},
       [padded](auto v) { return v[0] >= std::min(padded, 32); }},
      {"a row tile larger than N", {kRowTile}, [rows](auto v) { return v[0] <= rows; }},
      {"more than four steps: x comes too late each time",
       {kDepthWarps, kBlocks, kSplit},
       [k](auto v) { return k / (64 * v[0] * v[1]) <= 4 * v[2]; }},
      {"a share of the depth without a step",
       {kDepthWarps, kBlocks, kSplit},
       [k](auto v) { return k / (64 * v[0] * v[1]) >= v[2]; }},
      {"partials of the split exceed the workspace or half the weight's bytes",
       {kRowTile, kTokenTile, kSplit},
       [=](auto v) {
         return v[2] == 1 || partials_fit(workload, v[0], v[1], v[2], max_workspace_bytes);
       }},
      {"too few blocks to keep the SMs busy, or a split with nothing to fill",
       {kRowTile, kTokenTile, kSplit},
       [=](auto v) { return fills_sms(workload, device, v[0], v[1], v[2], 2); }},
      {"many tokens: x no longer fits beside the weights in registers",
       {kTokenTile},
       [m](auto) { return m <= kMostTokens; }},
  };
}

}  // namespace

std::string MmaReg::why_not(const Problem& /*problem*/, const DeviceInfo& device) const {
  if (device.sm < 80) return "mma.sync m16n8k16 needs compute capability 8.0";
  return {};
}

Space MmaReg::space(const Workload& workload, const DeviceInfo& device,
                    std::size_t max_workspace_bytes) const {
  W4_CHECK(why_not(workload.problem, device).empty(), "ask why_not() first");
  return Space({{kRowTile, {16, 32, 64}},
                {kTokenTile, {8, 16, 24, 32}},
                {kDepthWarps, {4, 8, 16}},
                {kBlocks, {1, 2, 4, 8}},
                {kAhead, {1, 2, 4, 8}},
                {kDequant, {1}},
                {kSplit, {1, 2, 3, 4, 5, 8, 16}},
                {kRaster, {1}}},
               constraints(workload, device, max_workspace_bytes));
}

Footprint MmaReg::footprint(const KernelConfig& config, const Problem& /*problem*/) const {
  const Shape shape = shape_of(config);
  Footprint footprint;
  footprint.row_tile = shape.row_tile;
  footprint.token_tile = shape.token_tile;
  footprint.depth_tile = shape.depth_tile();
  footprint.threads = shape.threads();
  footprint.smem_bytes = shape.smem_bytes();
  footprint.dependent = true;
  return footprint;
}

std::string MmaReg::source(const KernelConfig& config, const Problem& problem) const {
  const Shape shape = shape_of(config);
  return fmt::format(
      R"(#include "mma_reg.cuh"
struct Config {{
  using Element = w4::{};
  static constexpr int kRowTile = {};
  static constexpr int kTokenTile = {};
  static constexpr int kDepthWarps = {};
  static constexpr int kBlocks = {};
  static constexpr int kAhead = {};
  static constexpr int kGroupSize = {};
  static constexpr bool kGeglu = {};
}};
extern "C" __global__ void __launch_bounds__(w4::num_threads<Config>(), 1)
w4_kernel(const __grid_constant__ w4::GemmArgs args) {{
  w4::mma_reg<Config>(args);
}}
)",
      element_name(problem.dtype), shape.row_tile, shape.token_tile, shape.depth_warps,
      shape.blocks, shape.ahead, group_parameter(problem), problem.op == Op::kGeglu);
}

Cost MmaReg::cost(const Candidate& candidate, const Workload& workload,
                  const DeviceInfo& device) const {
  const Problem& problem = workload.problem;
  const Shape shape = shape_of(candidate.config);
  const double row_tiles = ceil_div(weight_rows(problem), shape.row_tile);
  const double tiles = row_tiles * ceil_div(workload.m, shape.token_tile);

  Work work = tiled_work(footprint(candidate.config, problem), candidate, workload);
  work.registers = shape.registers();
  work.in_flight_bytes = static_cast<double>(shape.ahead) * shape.row_tile * 32 * shape.depth_warps;
  work.steps = ceil_div(problem.k / shape.depth_tile(), work.plan.schedule.split_k);
  work.stages = 2;  // a step's x is waited for

  // Issue slots as for mma_pipe (docs/kernels.md), without cp.async and barriers; what a warp does
  // once, to find its place and to end, is felt where it has few blocks.
  const Rates rates = rates_of(device);
  const double tokens = shape.tokens();
  const double dequant = dequant_instructions(1, problem.dtype);
  const double group_steps = problem.group_size < 64 ? 2.0 : (problem.group_size < 128 ? 4.0 : 8.0);
  const double per_fragment = dequant + rates.mma_slots * tokens +
                              (4.0 * tokens + 6.0) / group_steps + 0.5 +
                              ((tokens + 1.0) / 2.0 + tokens / 2.0 + 2.0) / shape.rows();
  const double fragments = tiles * (shape.row_tile / 16.0) * (problem.k / 16.0);
  const double once = work.plan.grid * static_cast<double>(shape.depth_warps) * 600.0;
  work.warp_instructions = fragments * per_fragment + once;
  return predict(work, device, rates);
}

}  // namespace w4tune

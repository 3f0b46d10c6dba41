#include "templates/gemv.h"

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
constexpr const char* kCtas = "ctas";
constexpr const char* kDequant = "dequant";
constexpr const char* kSplit = "split_k";
constexpr const char* kRaster = "raster";

constexpr int kDenormals = 2;   // D2den
constexpr int kMostTokens = 8;  // a token costs 8 products for 8 weights, on tensor cores 1/8 mma
constexpr int kMostCtas = 4;    // of an SM, that registers are left for
constexpr int kMostRegisters = 255;
constexpr int kRegistersPerSm = 65536;
constexpr int kReservedSmemPerCta = 1024;

// One configuration with its derived sizes, named as in gemv.cuh.
struct Shape {
  int row_tile, token_tile, depth_warps, blocks, ahead, ctas, dequant;

  [[nodiscard]] int rows() const { return row_tile / 16; }
  [[nodiscard]] int depth_tile() const { return 64 * blocks * depth_warps; }
  [[nodiscard]] int threads() const { return 32 * depth_warps; }
  [[nodiscard]] int smem_bytes() const {
    constexpr int kVoteBytes = 16;
    const int slice = token_tile * blocks * (dequant == kDenormals ? 272 : 256);
    const int sums = 4 * row_tile * token_tile;
    return depth_warps * std::max(slice, sums) + kVoteBytes;
  }
  // What ptxas 13.0 needs at least: addresses, weights and scales under way, two sets of sums, x of
  // a step and of the next, x on its way to shared memory. It takes more where it may.
  [[nodiscard]] int registers() const {
    const int staged = std::clamp(token_tile * blocks / 4, 1, 4);
    return 20 + (4 * rows() + 1) * ahead + 4 * rows() * token_tile + 8 * token_tile + 9 * staged;
  }
  [[nodiscard]] int registers_allowed() const {
    return std::min(kMostRegisters, kRegistersPerSm / (threads() * ctas) / 8 * 8);
  }
};

Shape shape_of(const KernelConfig& config) {
  return {config.at(kRowTile), config.at(kTokenTile), config.at(kDepthWarps), config.at(kBlocks),
          config.at(kAhead),   config.at(kCtas),      config.at(kDequant)};
}

std::vector<Constraint> constraints(const Workload& workload, const DeviceInfo& device,
                                    std::size_t max_workspace_bytes) {
  const Problem problem = workload.problem;
  const int m = workload.m;
  const int rows = weight_rows(problem);
  const int k = problem.k;
  const bool takes_denormals = problem.dtype == Dtype::kF16 && group_parameter(problem) != 0;
  const auto smem = static_cast<int>(device.smem_block_bytes);
  const auto smem_sm = static_cast<int>(device.smem_sm_bytes);
  const int threads_per_sm = device.threads_per_sm;
  return {
      {"many tokens: each costs CUDA cores as much as the first",
       {kTokenTile},
       [m](auto) { return m <= kMostTokens; }},
      {"a token tile wider than M computes padding",
       {kTokenTile},
       [m](auto v) { return v[0] < 2 * m; }},
      {"narrow token tiles re-read the weights", {kTokenTile}, [m](auto v) { return v[0] >= m; }},
      {"nibbles as denormals: FP16 only, whose products with them stay within FP32, and groups, "
       "which settle the offset of 8",
       {kDequant},
       [takes_denormals](auto v) { return v[0] != kDenormals || takes_denormals; }},
      {"K must be a multiple of what the warps of a step take",
       {kDepthWarps, kBlocks},
       [k](auto v) { return k % (64 * v[0] * v[1]) == 0; }},
      {"the ring of weights and the blocks of a step must turn together",
       {kBlocks, kAhead},
       [](auto v) { return v[1] % v[0] == 0 || v[0] % v[1] == 0; }},
      {"more ahead than a warp's share of the depth has blocks",
       {kDepthWarps, kAhead, kSplit},
       [k](auto v) { return v[1] <= std::max(1, k / 64 / v[0] / v[2]); }},
      {"shared memory of a block, and of those that share an SM",
       {kRowTile, kTokenTile, kDepthWarps, kBlocks, kCtas, kDequant},
       [smem, smem_sm](auto v) {
         const int bytes = Shape{v[0], v[1], v[2], v[3], 1, v[4], v[5]}.smem_bytes();
         return bytes <= smem && v[4] * (bytes + kReservedSmemPerCta) <= smem_sm;
       }},
      {"threads of an SM",
       {kDepthWarps, kCtas},
       [threads_per_sm](auto v) { return 32 * v[0] * v[1] <= threads_per_sm; }},
      {"twice as many CTAs may have all registers that a thread can use",
       {kDepthWarps, kCtas},
       [](auto v) {
         return v[1] == kMostCtas || kRegistersPerSm / (64 * v[0] * v[1]) < kMostRegisters;
       }},
      {"registers of a block: the compiler would spill",
       {kRowTile, kTokenTile, kDepthWarps, kBlocks, kAhead, kCtas},
       [](auto v) {
         const Shape shape{v[0], v[1], v[2], v[3], v[4], v[5], 1};
         return shape.registers() <= shape.registers_allowed();
       }},
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
  };
}

// Issue slots of a warp for one word of each lane, 8 weights: what the busiest of the issue port
// and the pipes of integers (half rate) and of FP32 (half rate on sm_80) take.
double slots_of_word(const Shape& shape, const Problem& problem, const DeviceInfo& device) {
  const bool denormals = shape.dequant == kDenormals;
  const double tokens = shape.token_tile;
  const double group_steps = problem.group_size < 64 ? 2.0 : (problem.group_size < 128 ? 4.0 : 8.0);
  const double integer = 9.0;
  const double settle = denormals ? 2.0 : 1.0;
  const double floats =
      (denormals ? 0.0 : 8.0) + 8.0 * tokens + 2.0 * tokens * settle / group_steps;
  const double others = 6.0 / group_steps + (tokens + tokens / group_steps) / shape.rows() + 0.5;
  const double float_rate = device.sm == 80 ? 2.0 : 1.0;
  return std::max({integer + floats + others, 2.0 * integer + others, float_rate * floats});
}

}  // namespace

std::string Gemv::why_not(const Problem& /*problem*/, const DeviceInfo& device) const {
  if (device.sm < 80) return "it is compiled and checked for compute capability 8.0 and newer";
  return {};
}

Space Gemv::space(const Workload& workload, const DeviceInfo& device,
                  std::size_t max_workspace_bytes) const {
  W4_CHECK(why_not(workload.problem, device).empty(), "ask why_not() first");
  return Space({{kRowTile, {16, 32, 64}},
                {kTokenTile, {1, 2, 4, 8}},
                {kDepthWarps, {4, 8, 16}},
                {kBlocks, {1, 2, 4, 8}},
                {kAhead, {1, 2, 4, 8}},
                {kCtas, {1, 2, kMostCtas}},
                {kDequant, {1, kDenormals}},
                {kSplit, {1, 2, 3, 4, 5, 8, 16}},
                {kRaster, {1}}},
               constraints(workload, device, max_workspace_bytes));
}

Footprint Gemv::footprint(const KernelConfig& config, const Problem& /*problem*/) const {
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

std::string Gemv::source(const KernelConfig& config, const Problem& problem) const {
  const Shape shape = shape_of(config);
  return fmt::format(
      R"(#include "gemv.cuh"
struct Config {{
  using Element = w4::{};
  static constexpr int kRowTile = {};
  static constexpr int kTokenTile = {};
  static constexpr int kDepthWarps = {};
  static constexpr int kBlocks = {};
  static constexpr int kAhead = {};
  static constexpr bool kDenormals = {};
  static constexpr int kGroupSize = {};
  static constexpr bool kGeglu = {};
}};
extern "C" __global__ void __launch_bounds__(w4::num_threads<Config>(), {})
w4_kernel(const __grid_constant__ w4::GemmArgs args) {{
  w4::gemv<Config>(args);
}}
)",
      element_name(problem.dtype), shape.row_tile, shape.token_tile, shape.depth_warps,
      shape.blocks, shape.ahead, shape.dequant == kDenormals, group_parameter(problem),
      problem.op == Op::kGeglu, shape.ctas);
}

Cost Gemv::cost(const Candidate& candidate, const Workload& workload,
                const DeviceInfo& device) const {
  const Problem& problem = workload.problem;
  const Shape shape = shape_of(candidate.config);
  const double row_tiles = ceil_div(weight_rows(problem), shape.row_tile);
  const double tiles = row_tiles * ceil_div(workload.m, shape.token_tile);

  Work work = tiled_work(footprint(candidate.config, problem), candidate, workload);
  work.mma_flops = 0.0;
  work.registers = shape.registers_allowed();  // and takes them
  work.in_flight_bytes = static_cast<double>(shape.ahead) * shape.row_tile * 32 * shape.depth_warps;
  work.steps = ceil_div(problem.k / shape.depth_tile(), work.plan.schedule.split_k);
  work.stages = 2;  // a step's x is waited for

  // A pass of x: 8 numbers of each lane to FP32 and into shared memory. Once in a warp: to find its
  // place, and to end.
  const double words = tiles * shape.rows() * (problem.k / 16.0);
  const double passes =
      tiles * (problem.k / 64.0 / shape.blocks) * ceil_div(shape.token_tile * shape.blocks, 4);
  const double warps = work.plan.grid * static_cast<double>(shape.depth_warps);
  work.warp_instructions =
      words * slots_of_word(shape, problem, device) + passes * 40.0 + warps * 300.0;
  return predict(work, device, rates_of(device));
}

}  // namespace w4tune

#include "templates/mma_tile.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/check.h"
#include "templates/tiling.h"

namespace w4tune {
namespace {

// The searched parameters, in the order of the canonical text.
constexpr const char* kRowTile = "row_tile";
constexpr const char* kWarpRows = "warp_rows";
constexpr const char* kTokenTile = "token_tile";
constexpr const char* kStages = "stages";
constexpr const char* kCtas = "ctas";
constexpr const char* kDequant = "dequant";
constexpr const char* kSplit = "split_k";
constexpr const char* kRaster = "raster";

constexpr int kDepthTile = 64;
constexpr int kLeastTokens = 32;  // below, mma_pipe has what there is to gain
constexpr int kLeastShare = 2048;
constexpr int kRegistersPerSm = 65536;
constexpr int kReservedSmemPerCta = 1024;

// One configuration with its derived sizes, named as in mma_tile.cuh.
struct Shape {
  int row_tile, warp_rows, token_tile, stages, ctas;
  int group;  // 0: one scale per row

  [[nodiscard]] int warps() const { return row_tile / warp_rows; }
  [[nodiscard]] int threads() const { return 32 * warps(); }
  [[nodiscard]] int rows() const { return warp_rows / 16; }    // 16-row fragments of a warp
  [[nodiscard]] int tokens() const { return token_tile / 8; }  // 8-token fragments
  [[nodiscard]] int stage_bytes() const {
    const int groups = group == 0 ? 0 : std::max(1, kDepthTile / group);
    return row_tile * kDepthTile / 2 + token_tile * kDepthTile * 2 + row_tile * groups * 2;
  }
  [[nodiscard]] int smem_bytes() const {
    constexpr int kVoteBytes = 16;
    return stages * stage_bytes() + kVoteBytes;
  }
  // Sums; of each row fragment two operands, weights and scales; a window of tokens; addresses.
  // Fitted to where ptxas begins to spill, for sm_86 and sm_90a.
  [[nodiscard]] int registers() const {
    return 4 * rows() * tokens() + 14 * rows() + 4 * std::min(4, (tokens() + 1) / 2) + 35;
  }
  // What the launch bounds leave a thread.
  [[nodiscard]] int most_registers() const {
    return std::min(248, kRegistersPerSm / (threads() * ctas) / 8 * 8);
  }
};

Shape shape_of(const KernelConfig& config, const Problem& problem) {
  return {config.at(kRowTile), config.at(kWarpRows), config.at(kTokenTile),
          config.at(kStages),  config.at(kCtas),     group_parameter(problem)};
}

// Rules of the template itself: what breaks them does not compile or does not run.
std::vector<Constraint> structural_constraints(const Problem& problem, const DeviceInfo& device) {
  const int group = group_parameter(problem);
  const auto smem = static_cast<int>(device.smem_block_bytes);
  return {
      {"each warp takes as many rows",
       {kRowTile, kWarpRows},
       [](auto v) { return v[0] % v[1] == 0; }},
      {"a scale per row is applied to the final sums (D1), others to the weights (D0)",
       {kDequant},
       [group](auto v) { return v[0] == (group == 0 ? 1 : 0); }},
      {"registers of a thread: the compiler would spill",
       {kRowTile, kWarpRows, kTokenTile, kCtas},
       [group](auto v) {
         const Shape shape{v[0], v[1], v[2], 2, v[3], group};
         return shape.registers() <= shape.most_registers();
       }},
      {"shared memory of a block",
       {kRowTile, kWarpRows, kTokenTile, kStages},
       [smem, group](auto v) {
         return Shape{v[0], v[1], v[2], v[3], 1, group}.smem_bytes() <= smem;
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
  const bool hopper = device.sm >= 90;
  const auto smem_sm = static_cast<int>(device.smem_sm_bytes);
  const auto workspace = static_cast<double>(max_workspace_bytes);
  return {
      {"fewer than 32 tokens are left to the families for few",
       {kTokenTile},
       [m](auto) { return m > kLeastTokens - 8; }},
      {"a token tile wider than M computes padding",
       {kTokenTile},
       [padded](auto v) { return v[0] <= padded; }},
      {"token padding above 10 %",
       {kTokenTile},
       [padded](auto v) { return ceil_div(padded, v[0]) * v[0] * 100 <= padded * 110; }},
      {"a row tile larger than the weight", {kRowTile}, [rows](auto v) { return v[0] <= rows; }},
      {"the four schedulers of an SM have the same number of warps",
       {kRowTile, kWarpRows},
       [](auto v) { return v[0] / v[1] % 4 == 0; }},
      {"8 to 16 warps an SM: fewer wait for each other, more leave no registers",
       {kRowTile, kWarpRows, kCtas},
       [](auto v) {
         const int warps = v[0] / v[1] * v[2];
         return warps >= 8 && warps <= 16;
       }},
      {"less than 32 sums a thread dequantise too often",
       {kWarpRows, kTokenTile},
       [](auto v) { return v[0] * v[1] / 32 >= 32; }},
      // Its products take 6.2 cycles, so 16 rows want 165 bytes a clock of the 128 that there are.
      {"16 rows a warp read tokens faster than Hopper's shared memory can give them",
       {kWarpRows},
       [hopper](auto v) { return !hopper || v[0] > 16; }},
      {"shared memory of an SM",
       {kRowTile, kWarpRows, kTokenTile, kStages, kCtas},
       [smem_sm, group](auto v) {
         const Shape shape{v[0], v[1], v[2], v[3], v[4], group};
         return v[4] * (shape.smem_bytes() + kReservedSmemPerCta) <= smem_sm;
       }},
      {"each share of the depth must fill its pipeline",
       {kStages, kSplit},
       [k = problem.k](auto v) { return k / kDepthTile >= v[1] * v[0]; }},
      // Each output of a share is 8 bytes of traffic and twice its depth of operations.
      {"shares less than 2048 deep take longer to add up than to compute",
       {kSplit},
       [k = problem.k](auto v) { return v[0] == 1 || k >= kLeastShare * v[0]; }},
      {"partials of the split exceed the workspace",
       {kRowTile, kTokenTile, kSplit},
       [=](auto v) { return v[2] == 1 || partial_bytes(workload, v[0], v[1], v[2]) <= workspace; }},
      {"too few blocks to keep the SMs busy, or a split with nothing to fill",
       {kRowTile, kTokenTile, kSplit},
       [=](auto v) { return fills_sms(workload, device, v[0], v[1], v[2], 4); }},
      {"a raster wider than the row tiles repeats a narrower one",
       {kRowTile, kTokenTile, kRaster},
       [=](auto v) { return raster_differs(workload, v[0], v[1], v[2]); }},
  };
}

}  // namespace

std::string MmaTile::why_not(const Problem& /*problem*/, const DeviceInfo& device) const {
  if (device.sm < 80) return "mma.sync m16n8k16 and cp.async need compute capability 8.0";
  return {};
}

Space MmaTile::space(const Workload& workload, const DeviceInfo& device,
                     std::size_t max_workspace_bytes) const {
  W4_CHECK(why_not(workload.problem, device).empty(), "ask why_not() first");
  std::vector<int> token_tiles;
  for (int tokens = kLeastTokens; tokens <= 176; tokens += 8) token_tiles.push_back(tokens);
  std::vector<Constraint> constraints = structural_constraints(workload.problem, device);
  std::vector<Constraint> pruning = pruning_constraints(workload, device, max_workspace_bytes);
  std::move(pruning.begin(), pruning.end(), std::back_inserter(constraints));
  return Space({{kRowTile, {64, 128, 192, 256}},
                {kWarpRows, {16, 32, 48, 64}},
                {kTokenTile, token_tiles},
                {kStages, {2, 3, 4, 6}},
                {kCtas, {1, 2, 3, 4}},
                {kDequant, {0, 1}},
                {kSplit, {1, 2, 3, 4, 5, 6, 7, 8}},
                {kRaster, {1, 4, 16}}},
               std::move(constraints));
}

Footprint MmaTile::footprint(const KernelConfig& config, const Problem& problem) const {
  const Shape shape = shape_of(config, problem);
  Footprint footprint;
  footprint.row_tile = shape.row_tile;
  footprint.token_tile = shape.token_tile;
  footprint.depth_tile = kDepthTile;
  footprint.threads = shape.threads();
  footprint.smem_bytes = shape.smem_bytes();
  footprint.dependent = true;
  return footprint;
}

std::string MmaTile::source(const KernelConfig& config, const Problem& problem) const {
  const Shape shape = shape_of(config, problem);
  return fmt::format(
      R"(#include "mma_tile.cuh"
struct Config {{
  using Element = w4::{};
  static constexpr int kRowTile = {};
  static constexpr int kWarpRows = {};
  static constexpr int kTokenTile = {};
  static constexpr int kDepthTile = {};
  static constexpr int kStages = {};
  static constexpr bool kEvictFirst = false;
  static constexpr int kGroupSize = {};
  static constexpr bool kGeglu = {};
}};
extern "C" __global__ void __launch_bounds__(w4::num_threads<Config>(), {})
w4_kernel(const __grid_constant__ w4::GemmArgs args) {{
  w4::mma_tile<Config>(args);
}}
)",
      element_name(problem.dtype), shape.row_tile, shape.warp_rows, shape.token_tile, kDepthTile,
      shape.stages, shape.group, problem.op == Op::kGeglu, shape.ctas);
}

Cost MmaTile::cost(const Candidate& candidate, const Workload& workload,
                   const DeviceInfo& device) const {
  const Problem& problem = workload.problem;
  const Shape shape = shape_of(candidate.config, problem);
  const double row_tiles = ceil_div(weight_rows(problem), shape.row_tile);
  const double tiles = row_tiles * ceil_div(workload.m, shape.token_tile);

  Work work = tiled_work(footprint(candidate.config, problem), candidate, workload);
  work.registers = shape.most_registers();
  work.in_flight_bytes = (shape.stages - 1.0) * shape.stage_bytes();
  work.steps = problem.k / kDepthTile / work.plan.schedule.split_k;
  work.stages = shape.stages;
  // Partials are written and read; those that L2 cannot hold go to DRAM.
  const double partials = 2.0 * static_cast<double>(work.plan.partial_bytes);
  work.l2_bytes += partials;
  if (work.plan.partial_bytes > device.l2_bytes) work.dram_bytes += partials;

  // Issue slots of one warp and 16-deep step (docs/kernels.md): products, dequantisation, tokens by
  // ldmatrix, and a quarter of what each block of 64 takes for weights, scales and addresses.
  const Rates rates = rates_of(device);
  const double rows = shape.rows();
  // Hopper's LOP3 and SHF, 5 of the 13, take two slots each.
  const double dequant =
      dequant_instructions(shape.group == 0 ? 1 : 0, problem.dtype) + (device.sm >= 90 ? 5.0 : 0.0);
  const double per_step = rows * (rates.mma_slots * shape.tokens() + dequant + 2.0) +
                          (shape.tokens() + 1.0) / 2.0 + 4.0;
  const double steps = tiles * shape.warps() * (problem.k / 16.0);
  // One cp.async with its address arithmetic for each 16 bytes, 32 lanes an instruction; barrier
  // and waits of each step, felt by every warp.
  const double blocks = tiles * (problem.k / static_cast<double>(kDepthTile));
  const double fetches = blocks * shape.stage_bytes() / 512.0 * 4.0;
  const double barriers = blocks * shape.warps() * 30.0;
  work.warp_instructions = steps * per_step + fetches + barriers;
  return predict(work, device, rates);
}

}  // namespace w4tune

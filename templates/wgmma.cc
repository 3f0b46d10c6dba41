#include "templates/wgmma.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "core/check.h"
#include "templates/tiling.h"
#include "templates/wgmma_text.h"

namespace w4tune {
namespace {

// The searched parameters, in the order of the canonical text.
constexpr const char* kWarpgroups = "warpgroups";
constexpr const char* kFragments = "fragments";
constexpr const char* kTokenTile = "token_tile";
constexpr const char* kDepthTile = "depth_tile";
constexpr const char* kStages = "stages";
constexpr const char* kAhead = "ahead";
constexpr const char* kDequant = "dequant";
constexpr const char* kReduce = "reduce";
constexpr const char* kSplit = "split_k";
constexpr const char* kRaster = "raster";

constexpr int kMostSums = 128;  // of a thread; more leave no registers for anything else
constexpr int kMostStages = 12;

// One configuration with its derived sizes, named as in wgmma.cuh.
struct Shape {
  int warpgroups, fragments, token_tile, depth_tile, stages;
  int reduce = 0;
  int ahead = 0;

  [[nodiscard]] int row_tile() const { return 64 * fragments * warpgroups; }
  [[nodiscard]] int sums() const { return fragments * token_tile / 2; }  // of a thread
  [[nodiscard]] bool takes_registers() const { return warpgroups == 2 && sums() > 56; }
  [[nodiscard]] int threads() const { return 128 * warpgroups + (takes_registers() ? 128 : 32); }
  [[nodiscard]] int stage_bytes() const {
    return row_tile() * depth_tile / 2 + token_tile * depth_tile * 2;
  }
  [[nodiscard]] int smem_bytes() const {
    constexpr int kBarrierBytes = 512;
    return stages * stage_bytes() + kBarrierBytes;
  }
};

Shape shape_of(const KernelConfig& config) {
  return {config.at(kWarpgroups), config.at(kFragments), config.at(kTokenTile),
          config.at(kDepthTile),  config.at(kStages),    config.at(kReduce),
          config.at(kAhead)};
}

std::vector<Constraint> constraints(const Workload& workload, const DeviceInfo& device,
                                    std::size_t max_workspace_bytes) {
  const Problem problem = workload.problem;
  const int m = workload.m;
  const int k = problem.k;
  const int rows = weight_rows(problem);
  const int group = group_parameter(problem);
  const auto smem = static_cast<int>(device.smem_block_bytes);
  return {
      // Of the template itself: what breaks these does not compile or does not run.
      {"K must be a multiple of the depth tile",
       {kDepthTile},
       [k](auto v) { return k % v[0] == 0; }},
      {"an even number of 64-deep blocks and fragments in a step",
       {kFragments, kDepthTile},
       [](auto v) { return v[0] * (v[1] / 64) % 2 == 0; }},
      {"a group longer than a step must be whole steps",
       {kDepthTile},
       [group](auto v) { return group <= v[0] || group % v[0] == 0; }},
      {"more than 128 sums a thread leave no registers",
       {kFragments, kTokenTile},
       [](auto v) { return v[0] * v[1] / 2 <= kMostSums; }},
      {"a scale per row is applied to the final sums, which is D1; others to the weights, D0",
       {kDequant},
       [group](auto v) { return v[0] == (group == 0 ? 1 : 0); }},
      {"shared memory of a block",
       {kWarpgroups, kFragments, kTokenTile, kDepthTile, kStages},
       [=](auto v) {
         return Shape{v[0], v[1], v[2], v[3], v[4]}.smem_bytes() <= smem;
       }},
      {"the shares of a cluster wait where the ring was",
       {kWarpgroups, kFragments, kTokenTile, kDepthTile, kStages, kReduce, kSplit},
       [](auto v) {
         const Shape shape{v[0], v[1], v[2], v[3], v[4]};
         const int eights = ceil_div(shape.token_tile / 8, v[6]) * v[6];
         return v[5] == 0 || shape.row_tile() * eights * 32 <= shape.stages * shape.stage_bytes();
       }},
      // Of experience: what breaks these can't win.
      {"a smaller token tile would need no more tiles",
       {kTokenTile},
       [m](auto v) { return v[0] == 64 || ceil_div(m, v[0] - 8) > ceil_div(m, v[0]); }},
      {"fewer buffers than there is room for, or than a share has steps",
       {kWarpgroups, kFragments, kTokenTile, kDepthTile, kStages, kSplit},
       [=](auto v) {
         const Shape one_more{v[0], v[1], v[2], v[3], v[4] + 1};
         return v[4] == kMostStages || one_more.smem_bytes() > smem || v[4] * v[5] >= k / v[3];
       }},
      {"products of wide tiles hide the latency of their weights",
       {kTokenTile, kAhead},
       [](auto v) { return v[1] == 0 || v[0] <= 160; }},
      {"a row tile larger than N",
       {kWarpgroups, kFragments},
       [rows](auto v) { return 64 * v[0] * v[1] <= rows; }},
      {"partials of the split exceed the workspace or twice what is read",
       {kWarpgroups, kFragments, kTokenTile, kSplit, kReduce},
       [=](auto v) {
         if (v[3] == 1 || v[4] == 1) return true;
         const double bytes = partial_bytes(workload, 64 * v[0] * v[1], v[2], v[3]);
         const double read = static_cast<double>(weight_bytes(problem)) + 2.0 * m * k;
         return bytes <= static_cast<double>(max_workspace_bytes) && bytes <= 2.0 * read;
       }},
      {"too few tiles to keep the SMs busy, or a split with nothing to fill",
       {kWarpgroups, kFragments, kTokenTile, kSplit},
       [=](auto v) { return fills_sms(workload, device, 64 * v[0] * v[1], v[2], v[3], 2); }},
      {"only a split can be reduced through a cluster",
       {kReduce, kSplit},
       [](auto v) { return v[0] == 0 || v[1] > 1; }},
      {"a cluster has one tile, so all of them must find room at once",
       {kWarpgroups, kFragments, kTokenTile, kReduce, kSplit},
       [=](auto v) {
         const int tiles = ceil_div(rows, 64 * v[0] * v[1]) * ceil_div(m, v[2]);
         // Clusters of more than two lie within groups of SMs that not all have room for whole
         // ones.
         const double room = v[4] > 2 ? 0.9 * device.sm_count : device.sm_count;
         return v[3] == 0 || tiles * v[4] <= room;
       }},
      {"two buffers leave the copy engine no time",
       {kDepthTile, kStages, kSplit},
       [k](auto v) { return v[1] > 2 || k / v[0] / v[2] <= 2; }},
      {"each share of the depth must be worth its end",
       {kDepthTile, kSplit},
       [k](auto v) { return k / v[1] >= 256 && k / v[0] >= v[1]; }},
  };
}

std::vector<int> token_tiles() {
  std::vector<int> tiles;
  for (int tokens = 64; tokens <= 256; tokens += 8) tiles.push_back(tokens);
  return tiles;
}

}  // namespace

std::string WgmmaTiles::why_not(const Problem& /*problem*/, const DeviceInfo& device) const {
  if (device.sm != 90) return "wgmma and tensor copies need compute capability 9.0";
  return {};
}

Space WgmmaTiles::space(const Workload& workload, const DeviceInfo& device,
                        std::size_t max_workspace_bytes) const {
  W4_CHECK(why_not(workload.problem, device).empty(), "ask why_not() first");
  std::vector<int> stages(kMostStages - 1);
  std::iota(stages.begin(), stages.end(), 2);
  return Space({{kWarpgroups, {1, 2}},
                {kFragments, {1, 2}},
                {kTokenTile, token_tiles()},
                {kDepthTile, {64, 128, 256}},
                {kStages, std::move(stages)},
                {kAhead, {0, 1}},
                {kDequant, {0, 1}},
                {kReduce, {0, 1}},
                {kSplit, {1, 2, 3, 4, 6, 8}},
                {kRaster, {1}}},
               constraints(workload, device, max_workspace_bytes));
}

Footprint WgmmaTiles::footprint(const KernelConfig& config, const Problem& /*problem*/) const {
  const Shape shape = shape_of(config);
  Footprint footprint;
  footprint.row_tile = shape.row_tile();
  footprint.token_tile = shape.token_tile;
  footprint.depth_tile = shape.depth_tile;
  footprint.threads = shape.threads();
  footprint.smem_bytes = shape.smem_bytes();
  footprint.token_map = true;
  footprint.dependent = true;
  footprint.persistent = true;
  footprint.cluster_split = shape.reduce == 1;
  return footprint;
}

std::string WgmmaTiles::source(const KernelConfig& config, const Problem& problem) const {
  const Shape shape = shape_of(config);
  return fmt::format(
      R"(#include "wgmma.cuh"
{}struct Config {{
  using Element = w4::{};
  static constexpr int kWarpgroups = {};
  static constexpr int kFragments = {};
  static constexpr int kTokenTile = {};
  static constexpr int kDepthTile = {};
  static constexpr int kStages = {};
  static constexpr bool kAhead = {};
  static constexpr int kGroupSize = {};
  static constexpr int kReduce = {};
  static constexpr bool kGeglu = {};
}};
extern "C" __global__ void __launch_bounds__(w4::num_threads<Config>(), 1)
w4_kernel(const __grid_constant__ w4::GemmArgs args,
          const __grid_constant__ w4::TensorMap tokens,
          const __grid_constant__ w4::TensorMap weights) {{
  w4::wgmma_tiles<Config>(args, tokens, weights);
}}
)",
      wgmma_text(shape.token_tile, problem.dtype), element_name(problem.dtype), shape.warpgroups,
      shape.fragments, shape.token_tile, shape.depth_tile, shape.stages, shape.ahead == 1,
      group_parameter(problem), shape.reduce, problem.op == Op::kGeglu);
}

Cost WgmmaTiles::cost(const Candidate& candidate, const Workload& workload,
                      const DeviceInfo& device) const {
  const Problem& problem = workload.problem;
  const Shape shape = shape_of(candidate.config);
  const Rates rates = rates_of(device);
  Work work = tiled_work(footprint(candidate.config, problem), candidate, workload);
  work.registers = 168;
  work.in_flight_bytes =
      static_cast<double>(shape.stages) * shape.row_tile() * shape.depth_tile / 2;
  work.steps = 1;  // a step's latency is the producer's, which is ahead
  // Cycles of four products, 64 deep, of one fragment, fitted to what was measured on an H100
  // (docs/kernels.md, "wgmma", has what binds).
  const double dequant_cycles = shape.ahead == 1 ? 190.0 : 230.0;
  constexpr double kStepCycles = 140.0;
  const double tile_cycles = shape.ahead == 1 ? 1800.0 : 1500.0;
  constexpr double kLoadedClock = 1.7 / 1.98;  // of the boost clock
  constexpr double kL2BytesPerClock = 34.0;
  const double products = 2.0 * shape.token_tile;
  const double turn =
      products + dequant_cycles + kStepCycles / (shape.fragments * shape.depth_tile / 64.0);
  const double group = std::max(turn, products * shape.warpgroups);
  const double bytes = 128.0 * shape.token_tile + 32.0 * shape.row_tile();  // 64 deep
  const double block = std::max(group * shape.fragments, bytes / kL2BytesPerClock);
  const double items = work.plan.grid;
  const double cycles = problem.k / 64.0 / work.plan.schedule.split_k * block + tile_cycles;
  const double clock_hz = kLoadedClock * device.clock_mhz * 1e6;
  work.mma_flops = cycles / clock_hz * items / device.sm_count * rates.mma_tflops * 1e12;
  work.l2_bytes = 0.0;  // counted above
  Cost cost = predict(work, device, rates);
  // Persistent CTAs start once, and their ends are in tile_cycles. A launch and a split cost more
  // than in narrow tiles; a cluster takes time to begin, to meet, and for what it sends.
  constexpr double kLaunches = 1.45;
  constexpr double kReductions = 1.9;  // more
  constexpr double kClusterCycles = 2700.0;
  constexpr double kClusterBytesPerClock = 11.0;
  const double launch_us = cost.launch_us;
  const double reduce_us = cost.reduce_us;
  cost.launch_us = kLaunches * rates.launch_us;
  const int split = work.plan.schedule.split_k;
  if (split > 1 && shape.reduce == 0) cost.reduce_us += kReductions * rates.reduce_us;
  if (split > 1 && shape.reduce == 1) {
    const double sent = 4.0 * shape.row_tile() * shape.token_tile * (split - 1) / split;
    cost.reduce_us = (kClusterCycles + sent / kClusterBytesPerClock) / clock_hz * 1e6;
  }
  cost.total_us += cost.launch_us - launch_us + cost.reduce_us - reduce_us;
  return cost;
}

}  // namespace w4tune

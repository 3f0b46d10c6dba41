// Configurations that reach the corners of every family: each parameter at its smallest and
// largest, one and several warps along each axis, every way to multiply, dequantise and reduce; and
// what each of them can compute.
#pragma once

#include <fmt/format.h>

#include <string>
#include <vector>

#include "core/device_info.h"
#include "core/kernel_config.h"
#include "core/problem.h"
#include "templates/family.h"

namespace w4tune {
namespace samples {

struct MmaPipeCorner {
  int row_tile, token_tile, depth_tile, stages, row_warps, token_warps, depth_warps, dequant,
      reduce;
  int evict_first = 0;
};

inline KernelConfig config_of(const MmaPipeCorner& c) {
  return parse_kernel_config(
      fmt::format("mma_pipe row_tile={} token_tile={} depth_tile={} stages={} row_warps={} "
                  "token_warps={} depth_warps={} dequant={} reduce={} evict_first={}",
                  c.row_tile, c.token_tile, c.depth_tile, c.stages, c.row_warps, c.token_warps,
                  c.depth_warps, c.dequant, c.reduce, c.evict_first));
}

struct MmaTileCorner {
  int row_tile, warp_rows, token_tile, stages, ctas;
  int dequant = 0;  // 1: a scale per row
};

inline KernelConfig config_of(const MmaTileCorner& c) {
  return parse_kernel_config(
      fmt::format("mma_tile row_tile={} warp_rows={} token_tile={} stages={} ctas={} dequant={}",
                  c.row_tile, c.warp_rows, c.token_tile, c.stages, c.ctas, c.dequant));
}

struct WgmmaCorner {
  int warpgroups, fragments, token_tile, depth_tile, stages;
  int dequant = 0;  // 1: a scale per row
  int reduce = 0;   // 1: through a cluster
  int ahead = 0;
};

inline KernelConfig config_of(const WgmmaCorner& c) {
  return parse_kernel_config(fmt::format(
      "wgmma warpgroups={} fragments={} token_tile={} depth_tile={} stages={} ahead={} dequant={} "
      "reduce={}",
      c.warpgroups, c.fragments, c.token_tile, c.depth_tile, c.stages, c.ahead, c.dequant,
      c.reduce));
}

struct MmaRegCorner {
  int row_tile, token_tile, depth_warps, blocks, ahead;
};

inline KernelConfig config_of(const MmaRegCorner& c) {
  return parse_kernel_config(
      fmt::format("mma_reg row_tile={} token_tile={} depth_warps={} blocks={} ahead={} dequant=1",
                  c.row_tile, c.token_tile, c.depth_warps, c.blocks, c.ahead));
}

struct GemvCorner {
  int row_tile, token_tile, depth_warps, blocks, ahead, ctas, dequant;
};

inline KernelConfig config_of(const GemvCorner& c) {
  return parse_kernel_config(
      fmt::format("gemv row_tile={} token_tile={} depth_warps={} blocks={} ahead={} ctas={} "
                  "dequant={}",
                  c.row_tile, c.token_tile, c.depth_warps, c.blocks, c.ahead, c.ctas, c.dequant));
}

struct BulkPipeCorner {
  int row_warps, warp_rows, depth_warps, token_tile, depth_tile, stages, math, dequant, reduce;
  int ahead = 0;
};

inline KernelConfig config_of(const BulkPipeCorner& c) {
  return parse_kernel_config(
      fmt::format("bulk_pipe row_warps={} warp_rows={} depth_warps={} token_tile={} depth_tile={} "
                  "stages={} ahead={} math={} dequant={} reduce={}",
                  c.row_warps, c.warp_rows, c.depth_warps, c.token_tile, c.depth_tile, c.stages,
                  c.ahead, c.math, c.dequant, c.reduce));
}

}  // namespace samples

// For tests that want one kernel of each GPU, whichever.
inline KernelConfig ordinary_config() {
  return samples::config_of(samples::MmaPipeCorner{128, 16, 128, 4, 4, 1, 2, 1, 0});
}

// The L2 hint, which is for GPUs before Hopper.
inline KernelConfig hint_config() {
  return samples::config_of(samples::MmaPipeCorner{128, 16, 128, 4, 4, 1, 2, 1, 0, 1});
}

inline std::vector<KernelConfig> corner_configs(int sm) {
  using namespace samples;
  std::vector<KernelConfig> configs;
  // row_tile, token_tile, depth_tile, stages, row_warps, token_warps, depth_warps, dequant, reduce
  for (const MmaPipeCorner& corner : {
           MmaPipeCorner{16, 8, 512, 3, 1, 1, 8, 1, 0},
           {32, 16, 256, 4, 1, 1, 4, 1, 0},
           {64, 8, 64, 8, 4, 1, 1, 1, 0},
           {64, 24, 128, 3, 4, 1, 2, 0, 0},
           {128, 16, 128, 4, 4, 1, 2, 1, 0},
           {128, 56, 64, 4, 8, 1, 1, 1, 0},
           {256, 16, 64, 6, 8, 1, 1, 1, 0},
           {128, 64, 64, 3, 4, 2, 1, 0, 0},
           {128, 64, 64, 2, 8, 1, 1, 0, 0},
           {64, 64, 64, 3, 2, 4, 1, 0, 0},
           {64, 64, 128, 2, 4, 2, 2, 1, 0},
           // 13 row fragments: a warp each, with steps of one and of two blocks, or all a warp.
           {208, 16, 64, 6, 13, 1, 1, 1, 0},
           {208, 16, 128, 3, 13, 1, 1, 1, 0},
           {208, 8, 256, 3, 1, 1, 4, 1, 0},
           // Dequantisation by denormals.
           {16, 8, 512, 3, 1, 1, 8, 2, 0},
           {128, 16, 128, 4, 4, 1, 2, 2, 0},
           {128, 56, 64, 4, 8, 1, 1, 2, 0},
           {64, 24, 128, 3, 4, 1, 2, 3, 0},
           {256, 16, 64, 6, 4, 1, 1, 3, 0},
           {64, 64, 128, 2, 4, 2, 1, 3, 0},
           // Through a cluster.
           {64, 16, 128, 4, 2, 1, 2, 1, 1},
           {16, 8, 256, 2, 1, 1, 4, 1, 1},
           {128, 56, 64, 4, 8, 1, 1, 0, 1},
       }) {
    if (corner.reduce == 0 || sm >= 90) configs.push_back(config_of(corner));
  }
  if (sm < 90) configs.push_back(hint_config());
  // row_tile, warp_rows, token_tile, stages, ctas, dequant
  for (const MmaTileCorner& corner : {
           MmaTileCorner{64, 16, 64, 6, 4},
           {64, 16, 176, 2, 3},
           {128, 16, 88, 4, 1, 1},
           {128, 32, 32, 6, 4},
           {128, 32, 56, 3, 3, 1},
           {128, 32, 88, 3, 3},
           {128, 32, 88, 4, 2, 1},
           {128, 32, 128, 3, 2},
           {128, 32, 168, 3, 2},
           {192, 48, 48, 4, 3},
           {192, 48, 96, 2, 2, 1},
           {256, 32, 128, 4, 1},
           {256, 32, 168, 3, 1},
           {256, 32, 168, 2, 1, 1},
           {256, 64, 48, 3, 2},
           {256, 64, 72, 4, 2},
       }) {
    configs.push_back(config_of(corner));
  }
  // row_tile, token_tile, depth_warps, blocks, ahead
  for (const MmaRegCorner& corner : {
           MmaRegCorner{16, 8, 4, 1, 1},
           {16, 8, 16, 1, 8},
           {32, 16, 8, 2, 2},
           {32, 8, 16, 4, 4},
           {16, 8, 8, 8, 2},
           {64, 24, 4, 2, 1},
           {32, 32, 8, 2, 2},
           {16, 32, 4, 1, 4},
       }) {
    configs.push_back(config_of(corner));
  }
  // row_tile, token_tile, depth_warps, blocks, ahead, ctas, dequant
  for (const GemvCorner& corner : {
           GemvCorner{16, 1, 4, 1, 1, 4, 1},
           {16, 1, 16, 1, 8, 1, 2},
           {64, 1, 8, 4, 2, 2, 2},
           {64, 1, 8, 2, 4, 2, 1},
           {32, 1, 16, 2, 1, 2, 2},
           {16, 2, 8, 8, 2, 2, 1},
           {32, 2, 8, 2, 4, 2, 2},
           {64, 4, 4, 2, 2, 2, 1},
           {32, 4, 8, 2, 1, 2, 2},
           {16, 8, 8, 1, 4, 1, 1},
           {32, 8, 4, 2, 2, 2, 2},
           {64, 8, 8, 1, 1, 1, 2},
       }) {
    configs.push_back(config_of(corner));
  }
  // row_warps, warp_rows, depth_warps, token_tile, depth_tile, stages, math, dequant, reduce
  for (const BulkPipeCorner& corner : {
           BulkPipeCorner{1, 16, 4, 8, 512, 3, 0, 1, 0},
           {1, 16, 16, 8, 1024, 2, 0, 1, 0},
           {2, 16, 8, 16, 1024, 2, 0, 1, 0},
           {1, 32, 4, 16, 512, 3, 0, 1, 1},
           {4, 32, 2, 16, 256, 3, 0, 1, 0},
           {8, 32, 1, 32, 128, 3, 0, 0, 0},
           {2, 64, 2, 16, 256, 3, 0, 1, 0},
           {2, 64, 4, 8, 512, 2, 0, 3, 0},
           {4, 32, 1, 16, 128, 4, 0, 3, 1},
           {4, 64, 1, 8, 128, 4, 0, 1, 1},
           {8, 16, 1, 24, 128, 12, 0, 0, 0},
           {4, 16, 1, 32, 256, 3, 0, 1, 0},
           {2, 16, 4, 40, 256, 4, 0, 1, 1},
           {4, 16, 2, 64, 256, 3, 0, 0, 1},
           {4, 16, 1, 8, 128, 6, 1, 1, 0},
           {4, 16, 2, 16, 256, 4, 1, 1, 1},
           {8, 16, 1, 24, 128, 4, 1, 0, 0},
           {4, 16, 4, 32, 512, 2, 1, 1, 0},
           {4, 16, 2, 32, 256, 3, 1, 0, 0},
           {8, 16, 2, 40, 256, 3, 1, 0, 1},
           {4, 16, 1, 48, 64, 12, 1, 1, 0},
           {8, 16, 1, 56, 128, 3, 1, 1, 0},
           {4, 16, 2, 64, 256, 3, 1, 1, 0},
           {4, 16, 4, 64, 256, 2, 1, 0, 0},
           {16, 16, 1, 32, 128, 4, 1, 1, 0},
           {16, 16, 1, 64, 64, 4, 1, 0, 0},
           // Weights straight to registers.
           {1, 16, 8, 8, 1024, 2, 0, 1, 0, 2},
           {1, 16, 8, 16, 1024, 4, 0, 1, 0, 4},
           {2, 32, 4, 16, 512, 2, 0, 1, 1, 2},
           {2, 32, 4, 8, 512, 2, 0, 3, 0, 2},
           {4, 32, 1, 32, 128, 3, 0, 0, 0, 2},
           {4, 16, 2, 16, 256, 4, 1, 1, 0, 4},
           {4, 16, 2, 32, 256, 4, 1, 0, 0, 4},
           {4, 16, 1, 56, 256, 4, 1, 1, 0, 1},
           {8, 16, 1, 64, 256, 4, 1, 0, 0, 1},
           {8, 16, 1, 40, 128, 6, 1, 1, 1, 4},
           {4, 16, 2, 64, 512, 3, 1, 1, 0, 1},
           {16, 16, 1, 32, 128, 4, 1, 1, 0, 1},
       }) {
    if (sm == 90) configs.push_back(config_of(corner));
  }
  for (const WgmmaCorner& corner : {
           WgmmaCorner{1, 1, 64, 128, 8},
           {1, 1, 256, 128, 3},
           {1, 2, 64, 64, 12},
           {1, 2, 128, 128, 5},
           {1, 1, 200, 256, 2, 1},
           {2, 1, 64, 128, 6, 0, 0, 1},
           {2, 1, 88, 256, 3},
           {2, 1, 112, 128, 5, 0, 0, 1},
           {2, 2, 56, 64, 6, 0, 0, 1},
           // With registers of the producer's warpgroup.
           {2, 1, 120, 128, 4},
           {2, 1, 168, 128, 4, 1},
           {2, 1, 248, 128, 3},
           {2, 1, 256, 128, 3, 1},
           {2, 2, 64, 128, 4, 1},
           {2, 2, 88, 128, 5},
           {2, 2, 128, 64, 9, 0, 0, 1},
           {2, 2, 128, 128, 4},
           {2, 2, 104, 256, 2},
           {1, 1, 88, 128, 4, 0, 1, 1},
           {2, 1, 160, 128, 4, 1, 0, 1},
           {2, 1, 256, 128, 3, 0, 1},
           {2, 2, 128, 128, 4, 1, 1},
       }) {
    if (sm == 90) configs.push_back(config_of(corner));
  }
  return configs;
}

// Whether the configuration can compute the problem on the device: the rules of its template.
inline bool fits(const KernelConfig& config, const Problem& problem, const DeviceInfo& device) {
  const Family& family = *find_family(config.family);
  const Footprint footprint = family.footprint(config, problem);
  const bool per_row = problem.group_size == problem.k;
  const bool newer = footprint.cluster_split || footprint.token_map;
  if (!family.why_not(problem, device).empty() || (newer && device.sm < 90)) return false;
  if (problem.k % footprint.depth_tile != 0) return false;
  if (per_row && config.at("dequant") != 1) return false;
  const bool many_tokens = config.family == "mma_tile" || config.family == "wgmma";
  if (many_tokens && !per_row && config.at("dequant") != 0) return false;
  if (config.family == "wgmma" && problem.group_size % footprint.depth_tile != 0 &&
      footprint.depth_tile % problem.group_size != 0) {
    return false;
  }
  const bool by_denormals = config.at("dequant") >= 2;
  const bool takes_denormals = config.family == "gemv" || device.mma_denormals.value_or(false);
  if (by_denormals && (problem.dtype != Dtype::kF16 || !takes_denormals)) return false;
  if (config.family == "bulk_pipe" && !per_row) {
    // Whole groups a warp.
    const int depth_of_warp = footprint.depth_tile / config.at("depth_warps");
    if (depth_of_warp % problem.group_size != 0) return false;
  }
  return static_cast<std::size_t>(footprint.smem_bytes) <= device.smem_block_bytes;
}

}  // namespace w4tune

// Configurations of mma_pipe that reach its corners: every parameter at its smallest and largest,
// one and several warps along each axis, both dequantisations, stages 2 to 8.
#pragma once

#include <string>
#include <vector>

#include "core/kernel_config.h"

namespace w4tune {

inline std::vector<KernelConfig> corner_configs() {
  std::vector<KernelConfig> configs;
  for (const char* parameters : {
           "row_tile=16 token_tile=8 depth_tile=512 stages=3 row_warps=1 token_warps=1 "
           "depth_warps=8 "
           "dequant=1 reduce=0 evict_first=0",
           "row_tile=32 token_tile=16 depth_tile=256 stages=4 row_warps=1 token_warps=1 "
           "depth_warps=4 "
           "dequant=1 reduce=0 evict_first=0",
           "row_tile=64 token_tile=8 depth_tile=64 stages=8 row_warps=4 token_warps=1 "
           "depth_warps=1 "
           "dequant=1 reduce=0 evict_first=0",
           "row_tile=64 token_tile=24 depth_tile=128 stages=3 row_warps=4 token_warps=1 "
           "depth_warps=2 "
           "dequant=0 reduce=0 evict_first=0",
           "row_tile=128 token_tile=16 depth_tile=128 stages=4 row_warps=4 token_warps=1 "
           "depth_warps=2 "
           "dequant=1 reduce=0 evict_first=0",
           "row_tile=128 token_tile=56 depth_tile=64 stages=4 row_warps=8 token_warps=1 "
           "depth_warps=1 "
           "dequant=1 reduce=0 evict_first=0",
           "row_tile=256 token_tile=16 depth_tile=64 stages=6 row_warps=8 token_warps=1 "
           "depth_warps=1 "
           "dequant=1 reduce=0 evict_first=0",
           "row_tile=128 token_tile=64 depth_tile=64 stages=3 row_warps=4 token_warps=2 "
           "depth_warps=1 "
           "dequant=0 reduce=0 evict_first=0",
           "row_tile=128 token_tile=88 depth_tile=64 stages=2 row_warps=8 token_warps=1 "
           "depth_warps=1 "
           "dequant=0 reduce=0 evict_first=0",
           "row_tile=128 token_tile=128 depth_tile=64 stages=3 row_warps=2 token_warps=4 "
           "depth_warps=1 "
           "dequant=0 reduce=0 evict_first=0",
           "row_tile=64 token_tile=64 depth_tile=128 stages=2 row_warps=4 token_warps=2 "
           "depth_warps=2 "
           "dequant=1 reduce=0 evict_first=0",
           // 13 row fragments: a warp each, with steps of one and of two blocks, or all a warp.
           "row_tile=208 token_tile=16 depth_tile=64 stages=6 row_warps=13 token_warps=1 "
           "depth_warps=1 dequant=1 reduce=0 evict_first=0",
           "row_tile=208 token_tile=16 depth_tile=128 stages=3 row_warps=13 token_warps=1 "
           "depth_warps=1 dequant=1 reduce=0 evict_first=0",
           "row_tile=208 token_tile=8 depth_tile=256 stages=3 row_warps=1 token_warps=1 "
           "depth_warps=4 dequant=1 reduce=0 evict_first=0",
       }) {
    configs.push_back(parse_kernel_config(std::string("mma_pipe ") + parameters));
  }
  return configs;
}

// The corners of the reduction through a cluster, for GPUs that have clusters.
inline std::vector<KernelConfig> cluster_configs() {
  std::vector<KernelConfig> configs;
  for (const char* parameters : {
           "row_tile=64 token_tile=16 depth_tile=128 stages=4 row_warps=2 token_warps=1 "
           "depth_warps=2 "
           "dequant=1 reduce=1 evict_first=0",
           "row_tile=16 token_tile=8 depth_tile=256 stages=2 row_warps=1 token_warps=1 "
           "depth_warps=4 "
           "dequant=1 reduce=1 evict_first=0",
           "row_tile=128 token_tile=56 depth_tile=64 stages=4 row_warps=8 token_warps=1 "
           "depth_warps=1 "
           "dequant=0 reduce=1 evict_first=0",
       }) {
    configs.push_back(parse_kernel_config(std::string("mma_pipe ") + parameters));
  }
  return configs;
}

// The corners of the dequantisations by denormals, for FP16, groups, and GPUs that take denormals.
inline std::vector<KernelConfig> denormal_configs() {
  std::vector<KernelConfig> configs;
  for (const char* parameters : {
           "row_tile=16 token_tile=8 depth_tile=512 stages=3 row_warps=1 token_warps=1 "
           "depth_warps=8 dequant=2 reduce=0 evict_first=0",
           "row_tile=128 token_tile=16 depth_tile=128 stages=4 row_warps=4 token_warps=1 "
           "depth_warps=2 dequant=2 reduce=0 evict_first=0",
           "row_tile=128 token_tile=56 depth_tile=64 stages=4 row_warps=8 token_warps=1 "
           "depth_warps=1 dequant=2 reduce=0 evict_first=0",
           "row_tile=64 token_tile=24 depth_tile=128 stages=3 row_warps=4 token_warps=1 "
           "depth_warps=2 dequant=3 reduce=0 evict_first=0",
           "row_tile=256 token_tile=16 depth_tile=64 stages=6 row_warps=4 token_warps=1 "
           "depth_warps=1 dequant=3 reduce=0 evict_first=0",
           "row_tile=64 token_tile=64 depth_tile=128 stages=2 row_warps=4 token_warps=2 "
           "depth_warps=1 dequant=3 reduce=0 evict_first=0",
       }) {
    configs.push_back(parse_kernel_config(std::string("mma_pipe ") + parameters));
  }
  return configs;
}

// The L2 hint, which is for GPUs before Hopper.
inline KernelConfig hint_config() {
  return parse_kernel_config(
      "mma_pipe row_tile=128 token_tile=16 depth_tile=128 stages=4 row_warps=4 token_warps=1 "
      "depth_warps=2 dequant=1 reduce=0 evict_first=1");
}

inline std::vector<KernelConfig> corner_configs(int sm) {
  std::vector<KernelConfig> configs = corner_configs();
  if (sm < 90) {
    configs.push_back(hint_config());
  } else {
    for (KernelConfig& config : cluster_configs()) configs.push_back(std::move(config));
  }
  return configs;
}

}  // namespace w4tune

// What is chosen at launch rather than at compile: grid, split, raster, workspace.
//
// The tuner and the runtime build a LaunchPlan from the same three values, so what was measured is
// what is launched.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/problem.h"

namespace w4tune {

// The part of a compiled kernel that a launch needs to know.
struct Footprint {
  int row_tile = 0;    // weight rows of one output tile
  int token_tile = 0;  // tokens of one output tile
  int depth_tile = 0;  // depth of one pipeline step; the split is in whole steps
  int threads = 0;
  int smem_bytes = 0;  // dynamic shared memory of one CTA
  // The CTAs of a split form a thread block cluster (sm_90) and need no workspace.
  bool cluster_split = false;
  // The kernel takes a second argument, a tensor map of x (sm_90; gpu/tensor_map.h, token_box).
  bool token_map = false;
  // On sm_90 it may be launched to begin before the kernel before it in the stream has ended.
  bool dependent = false;
  // CTAs stay, one an SM, and walk through the tiles; the kernel takes a third argument, a tensor
  // map of w (sm_90; gpu/tensor_map.h).
  bool persistent = false;

  auto operator<=>(const Footprint&) const = default;
};

// The run-time choices that are searched beside the KernelConfig.
struct Schedule {
  int split_k = 1;
  int raster = 1;

  auto operator<=>(const Schedule&) const = default;
};

struct LaunchPlan {
  std::uint32_t grid = 0;  // CTAs, one-dimensional
  std::uint32_t threads = 0;
  std::uint32_t smem_bytes = 0;
  std::uint32_t cluster = 1;      // CTAs of a cluster
  Schedule schedule;              // as launched: split_k clamped to the number of depth steps
  std::size_t partial_bytes = 0;  // FP32 partials, 0 without a split
  std::size_t counter_count = 0;  // 32-bit counters, 0 without a split
};

// Depth of a block of the weight layout, which is what one tensor copy of w brings.
inline constexpr int kBoxDepth = 64;

// What one tensor copy of x brings: a whole step, or 64 deep where CTAs are persistent or where M
// does not fill the tile, then of the tokens there are: copies that reach beyond the last token are
// slow (docs/kernels.md).
struct TokenBox {
  int tokens = 0;
  int depth = 0;
};
TokenBox token_box(const Footprint& footprint, int m);

// Requires m >= 1. split_k is clamped to the depth steps of the problem. `sm_count` bounds the grid
// of persistent CTAs; without it (0) each has one tile to do.
LaunchPlan make_launch_plan(const Footprint& footprint, const Problem& problem, int m,
                            Schedule schedule, int sm_count = 0);

}  // namespace w4tune

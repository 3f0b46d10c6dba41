#include "core/launch_plan.h"

#include <algorithm>

#include "core/check.h"

namespace w4tune {

LaunchPlan make_launch_plan(const Footprint& footprint, const Problem& problem, int m,
                            Schedule schedule, int sm_count) {
  W4_CHECK(m >= 1, "a launch needs at least one token");
  const auto ceil_div = [](int a, int b) { return static_cast<std::size_t>((a + b - 1) / b); };
  const std::size_t tiles =
      ceil_div(weight_rows(problem), footprint.row_tile) * ceil_div(m, footprint.token_tile);
  LaunchPlan plan;
  plan.threads = static_cast<std::uint32_t>(footprint.threads);
  plan.smem_bytes = static_cast<std::uint32_t>(footprint.smem_bytes);
  plan.schedule.split_k =
      std::clamp(schedule.split_k, 1, std::max(1, problem.k / footprint.depth_tile));
  plan.schedule.raster = std::max(1, schedule.raster);
  const auto split = static_cast<std::size_t>(plan.schedule.split_k);
  plan.grid = static_cast<std::uint32_t>(tiles * split);
  // A cluster has one tile only.
  if (footprint.persistent && !footprint.cluster_split && sm_count > 0) {
    plan.grid = std::min(plan.grid, static_cast<std::uint32_t>(sm_count));
  }
  if (footprint.cluster_split) {
    plan.cluster = static_cast<std::uint32_t>(split);
  } else if (split > 1) {
    const auto tile_floats = static_cast<std::size_t>(footprint.row_tile) *
                             static_cast<std::size_t>(footprint.token_tile);
    plan.partial_bytes = tiles * split * tile_floats * sizeof(float);
    // The warps of persistent CTAs finish 16 rows, or more, each on its own.
    plan.counter_count = tiles * (footprint.persistent ? ceil_div(footprint.row_tile, 16) : 1);
  }
  return plan;
}

TokenBox token_box(const Footprint& footprint, int m) {
  if (m >= footprint.token_tile && !footprint.persistent) {
    return {footprint.token_tile, footprint.depth_tile};
  }
  return {std::min(m, footprint.token_tile), kBoxDepth};
}

}  // namespace w4tune

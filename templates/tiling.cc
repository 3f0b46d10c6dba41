#include "templates/tiling.h"

namespace w4tune {
namespace {

int count_tiles(const Workload& workload, int row_tile, int token_tile) {
  return ceil_div(weight_rows(workload.problem), row_tile) * ceil_div(workload.m, token_tile);
}

}  // namespace

int group_parameter(const Problem& problem) {
  return problem.group_size == problem.k ? 0 : problem.group_size;
}

std::string_view element_name(Dtype dtype) { return dtype == Dtype::kF16 ? "F16" : "BF16"; }

double dequant_instructions(int dequant, Dtype dtype) {
  if (dequant == 2) return 5.0;
  if (dequant == 3) return 4.0;
  return (dtype == Dtype::kF16 ? 9.0 : 11.0) + (dequant == 0 ? 4.0 : 0.0);
}

std::string why_no_denormals(const Problem& problem, const DeviceInfo& device) {
  if (problem.dtype != Dtype::kF16) {
    return "nibbles as denormals are for FP16: those of BF16 are 2^-133, below what FP32 sums keep";
  }
  if (!device.mma_denormals) {
    return "nibbles as denormals need a probe of this GPU's tensor cores, and none is known";
  }
  if (!*device.mma_denormals) return "this GPU's tensor cores take FP16 denormals for zeros";
  return {};
}

double partial_bytes(const Workload& workload, int row_tile, int token_tile, int split_k) {
  return 4.0 * count_tiles(workload, row_tile, token_tile) * split_k * row_tile * token_tile;
}

bool partials_fit(const Workload& workload, int row_tile, int token_tile, int split_k,
                  std::size_t max_workspace_bytes) {
  const double bytes = partial_bytes(workload, row_tile, token_tile, split_k);
  return bytes <= static_cast<double>(max_workspace_bytes) &&
         bytes <= 0.5 * static_cast<double>(weight_bytes(workload.problem));
}

bool fills_sms(const Workload& workload, const DeviceInfo& device, int row_tile, int token_tile,
               int split_k, int enough) {
  const int tiles = count_tiles(workload, row_tile, token_tile);
  const bool fills = tiles * split_k * 10 >= device.sm_count * 4;
  const bool needed = split_k == 1 || tiles * (split_k - 1) < device.sm_count * enough;
  return fills && needed;
}

bool raster_differs(const Workload& workload, int row_tile, int token_tile, int raster) {
  if (ceil_div(workload.m, token_tile) == 1) return raster == 1;
  return raster <= ceil_div(weight_rows(workload.problem), row_tile);
}

Work tiled_work(const Footprint& footprint, const Candidate& candidate, const Workload& workload) {
  const Problem& problem = workload.problem;
  const double row_tiles = ceil_div(weight_rows(problem), footprint.row_tile);
  const double token_tiles = ceil_div(workload.m, footprint.token_tile);
  const double weights = static_cast<double>(weight_bytes(problem) + scale_bytes(problem));
  Work work;
  work.plan = make_launch_plan(footprint, problem, workload.m, candidate.schedule);
  work.dram_bytes = bytes_moved(workload);
  work.l2_bytes = weights * token_tiles + row_tiles * 2.0 * workload.m * problem.k;
  work.mma_flops =
      row_tiles * token_tiles * 2.0 * footprint.row_tile * footprint.token_tile * problem.k;
  return work;
}

}  // namespace w4tune

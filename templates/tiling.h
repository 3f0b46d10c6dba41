// What the descriptions of tiled families share: arithmetic of tiles, constraints that do not
// depend on how a kernel works inside, and the part of the counted work that follows from its
// tiles.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "core/device_info.h"
#include "core/launch_plan.h"
#include "core/problem.h"
#include "core/trial.h"
#include "templates/cost.h"

namespace w4tune {

inline int ceil_div(int a, int b) { return (a + b - 1) / b; }

// kGroupSize of a kernel: 0 where one scale serves a row.
int group_parameter(const Problem& problem);

// Name of the device type: "F16" or "BF16".
std::string_view element_name(Dtype dtype);

// "" where nibbles may be read as FP16 denormals (D2den, D4), else the reason why not.
std::string why_no_denormals(const Problem& problem, const DeviceInfo& device);

// Instructions for the 8 weights of a word (docs/kernels.md, "Dequantisation").
double dequant_instructions(int dequant, Dtype dtype);

// Of the FP32 partials of a split, with the padding of tiles.
double partial_bytes(const Workload& workload, int row_tile, int token_tile, int split_k);

// Whether the FP32 partials of a split stay within the workspace and half the weight's bytes.
bool partials_fit(const Workload& workload, int row_tile, int token_tile, int split_k,
                  std::size_t max_workspace_bytes);

// Whether the CTAs keep the SMs busy, and a split has SMs to fill: one share less would leave fewer
// than `enough` CTAs an SM.
bool fills_sms(const Workload& workload, const DeviceInfo& device, int row_tile, int token_tile,
               int split_k, int enough);

// Whether the walk of the tiles is not that of a smaller raster.
bool raster_differs(const Workload& workload, int row_tile, int token_tile, int raster);

// Plan, bytes and products of a launch; the rest of the work is the family's to count.
Work tiled_work(const Footprint& footprint, const Candidate& candidate, const Workload& workload);

}  // namespace w4tune

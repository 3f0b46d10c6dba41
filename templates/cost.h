// The cost model: a predicted time from counted work and a device's rates (docs/kernels.md, "Cost
// model").
//
// A device that was probed has measured rates (DeviceInfo::calibration); of others they are
// data-sheet figures times assumed efficiencies. Use it to rank, and call any time it gives a
// prediction.
#pragma once

#include <string>
#include <vector>

#include "core/device_info.h"
#include "core/launch_plan.h"

namespace w4tune {

// Rates of a device, measured or assumed. Printed beside every prediction.
struct Rates {
  double dram_gbps = 0.0;        // achievable read bandwidth
  double dram_latency_us = 0.0;  // one dependent read, while others keep the memory busy
  double l2_gbps = 0.0;          // L2 to SM
  double mma_tflops = 0.0;       // mma.sync, FP16 with FP32 accumulation
  double launch_us = 0.0;        // fill and drain of one kernel in a graph
  double reduce_us = 0.0;        // latency of the last-arriver reduction
  double reduce_sm_gbps = 0.0;   // partials an SM adds up
  double cluster_us = 0.0;       // the reduction within a cluster
  double issue_hz = 0.0;         // issue slots per second of one SM (4 schedulers)
  double mma_slots = 1.0;        // issue slots of an mma.sync m16n8k16
};

Rates rates_of(const DeviceInfo& device);
// The rates beside what they are assumed from, a line for each unit: "DRAM 619 GB/s, 89 % of the
// data sheet's 696; ...". Of a device that was probed, with what was measured and when.
std::vector<std::string> describe(const Rates& rates, const DeviceInfo& device);

// Counted work of one launch. Bytes and instructions are totals over the grid.
struct Work {
  LaunchPlan plan;
  double dram_bytes = 0.0;
  double l2_bytes = 0.0;           // what the SMs read: weights, plus x once per row tile
  double mma_flops = 0.0;          // with the padding of tiles
  double warp_instructions = 0.0;  // issue slots
  double in_flight_bytes = 0.0;    // requested ahead by one CTA
  int registers = 0;               // per thread, estimated
  int steps = 0;                   // pipeline steps of one CTA
  int stages = 2;                  // buffers of its pipeline
};

// Each term in microseconds; total is launch + reduce + a norm of the others, just above the
// largest.
struct Cost {
  double launch_us = 0.0;
  double dram_us = 0.0;
  double l2_us = 0.0;
  double mma_us = 0.0;
  double issue_us = 0.0;
  double latency_us = 0.0;  // waiting for a step's data
  double reduce_us = 0.0;
  double total_us = 0.0;
};

// `rates` are those of `device`, of which the curve of bytes under way is taken where it has one.
Cost predict(const Work& work, const DeviceInfo& device, const Rates& rates);

// max(bytes once / bandwidth, operations / rate): no kernel is faster.
double floor_us(const Workload& workload, double gbps, double tflops);

}  // namespace w4tune

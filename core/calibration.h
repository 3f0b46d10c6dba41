// Calibration: what a probe measured of one GPU, once. The cost model takes its rates from it
// (docs/kernels.md, "Cost model"); a GPU that nobody probed has none.
#pragma once

#include <string>
#include <vector>

namespace w4tune {

// Read bandwidth while so many bytes are under way to each SM.
struct ReadPoint {
  double bytes_per_sm = 0.0;
  double gbps = 0.0;

  bool operator==(const ReadPoint&) const = default;
};

struct Calibration {
  // How it is measured: raised when that changes, so that what is stored is measured anew.
  static constexpr int kMethod = 1;

  int method = kMethod;
  std::string measured_at;  // UTC
  std::string driver;
  double clock_mhz = 0.0;  // of the SMs while mma.sync multiplied; 0: could not be read

  double copy_gbps = 0.0;             // device-to-device copy, bytes read plus bytes written
  double read_gbps = 0.0;             // the most of the curve
  std::vector<ReadPoint> read_curve;  // cold reads; at least one, by bytes_per_sm, ascending
  double launch_us = 0.0;             // an empty kernel with a CTA for each SM, in a graph
  double dependent_launch_us = 0.0;   // the same as a dependent launch; 0: the GPU knows none
  double mma_tflops = 0.0;            // FP16 with FP32 accumulation
  std::string mma_source;             // "cublaslt_8192" or "data sheet"
  double mma_sync_tflops = 0.0;       // by mma.sync alone, from registers
  double reduce_us = 0.0;             // a split's partials: to tell who is last, beside their bytes
  double reduce_sm_gbps = 0.0;        // and at what rate each SM that is last adds them up

  bool operator==(const Calibration&) const = default;
};

// Whether every figure the model divides by is there and above zero.
bool is_sound(const Calibration& calibration);

// Read bandwidth with `bytes_per_sm` under way: between the points of the curve in a straight line,
// in proportion below the first. It never falls: more under way is as good at least.
double read_gbps_at(const Calibration& calibration, double bytes_per_sm);

// Bytes under way to each SM that reach `share` of read_gbps, above 0 and at most 1.
double bytes_reaching(const Calibration& calibration, double share);

// How long a read takes while the memory delivers most of what it can (Little's law at the bend of
// the curve).
double loaded_latency_us(const Calibration& calibration, int sm_count);

}  // namespace w4tune

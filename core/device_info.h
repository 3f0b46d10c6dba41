// DeviceInfo: what the tuner and the cost model know of a GPU, and the table of known GPUs.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/calibration.h"

namespace w4tune {

struct DeviceInfo {
  std::string name;  // as the driver says it, e.g. "NVIDIA A40"
  int sm = 0;        // compute capability as major * 10 + minor
  int sm_count = 0;
  std::size_t l2_bytes = 0;
  std::size_t smem_block_bytes = 0;  // most shared memory one CTA may opt into
  std::size_t smem_sm_bytes = 0;     // shared memory of one SM
  int threads_per_sm = 0;
  int clock_mhz = 0;        // boost clock
  double dram_gbps = 0.0;   // data sheet, or measured where a probe ran
  double mma_tflops = 0.0;  // dense FP16 with FP32 accumulation: data sheet, or measured
  // Whether mma.sync takes FP16 denormals as they are; empty until a probe ran on the GPU.
  std::optional<bool> mma_denormals = {};
  // What `w4tune probe` measured; empty until it did.
  std::optional<Calibration> calibration = {};

  bool operator==(const DeviceInfo&) const = default;
};

// A GPU one may name on the command line. Figures are the vendor's data sheet figures.
struct KnownDevice {
  DeviceInfo info;
  std::vector<std::string_view> aliases;  // lower case, e.g. "a40"
};

std::span<const KnownDevice> known_devices();

// Finds a GPU by alias or by the driver's name, ignoring case; nullptr on a miss.
const KnownDevice* find_known_device(std::string_view name_or_alias);

// "a40, a6000, ...": for messages.
std::string known_device_aliases();

// "sm_86"; from sm 90 on "sm_90a", because the families there use its specific instructions.
std::string arch_name(int sm);

}  // namespace w4tune

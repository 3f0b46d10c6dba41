#include "core/device_info.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>

namespace w4tune {
namespace {

constexpr std::size_t kKiB = 1024;
constexpr std::size_t kMiB = 1024 * kKiB;

// Shared memory and threads of an SM by compute capability (CUDA C++ programming guide, table of
// technical specifications).
struct SmLimits {
  std::size_t smem_block_bytes;
  std::size_t smem_sm_bytes;
  int threads_per_sm;
};

constexpr SmLimits sm_limits(int sm) {
  if (sm == 80) return {163 * kKiB, 164 * kKiB, 2048};
  if (sm == 90) return {227 * kKiB, 228 * kKiB, 2048};
  return {99 * kKiB, 100 * kKiB, 1536};  // 8.6 and 8.9
}

KnownDevice device(std::string_view name, int sm, int sm_count, std::size_t l2_mib, int clock_mhz,
                   double dram_gbps, double mma_tflops, std::vector<std::string_view> aliases) {
  const SmLimits limits = sm_limits(sm);
  return {{std::string(name), sm, sm_count, l2_mib * kMiB, limits.smem_block_bytes,
           limits.smem_sm_bytes, limits.threads_per_sm, clock_mhz, dram_gbps, mma_tflops},
          std::move(aliases)};
}

std::string lower(std::string_view text) {
  std::string result(text);
  std::transform(result.begin(), result.end(), result.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return result;
}

}  // namespace

std::span<const KnownDevice> known_devices() {
  // name, compute capability, SMs, L2 MiB, boost MHz, GB/s, dense FP16 TFLOP/s (FP32 accumulate)
  static const std::vector<KnownDevice> devices = {
      device("NVIDIA A40", 86, 84, 6, 1740, 696, 149.7, {"a40"}),
      device("NVIDIA RTX A6000", 86, 84, 6, 1800, 768, 154.8, {"a6000", "rtx-a6000"}),
      device("NVIDIA A10", 86, 72, 6, 1695, 600, 125.0, {"a10"}),
      device("NVIDIA GeForce RTX 3090", 86, 82, 6, 1695, 936, 71.2, {"3090", "rtx-3090"}),
      device("NVIDIA A100-SXM4-40GB", 80, 108, 40, 1410, 1555, 312.0, {"a100-40"}),
      device("NVIDIA A100-SXM4-80GB", 80, 108, 40, 1410, 2039, 312.0, {"a100", "a100-80"}),
      device("NVIDIA L4", 89, 58, 48, 2040, 300, 121.0, {"l4"}),
      device("NVIDIA L40S", 89, 142, 96, 2520, 864, 362.0, {"l40s"}),
      device("NVIDIA GeForce RTX 4090", 89, 128, 72, 2520, 1008, 165.2, {"4090", "rtx-4090"}),
      device("NVIDIA H100 PCIe", 90, 114, 50, 1755, 2000, 756.0, {"h100-pcie"}),
      device("NVIDIA H100 80GB HBM3", 90, 132, 50, 1980, 3350, 989.0, {"h100", "h100-sxm"}),
      device("NVIDIA H200", 90, 132, 60, 1980, 4800, 989.0, {"h200"}),
  };
  return devices;
}

const KnownDevice* find_known_device(std::string_view name_or_alias) {
  const std::string wanted = lower(name_or_alias);
  for (const KnownDevice& known : known_devices()) {
    if (lower(known.info.name) == wanted) return &known;
    for (const auto alias : known.aliases) {
      if (alias == wanted) return &known;
    }
  }
  return nullptr;
}

std::string known_device_aliases() {
  std::string text;
  for (const KnownDevice& known : known_devices()) {
    if (!text.empty()) text += ", ";
    text += known.aliases.front();
  }
  return text;
}

std::string arch_name(int sm) {
  return sm >= 90 ? fmt::format("sm_{}a", sm) : fmt::format("sm_{}", sm);
}

}  // namespace w4tune

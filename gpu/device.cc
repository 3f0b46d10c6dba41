#include "gpu/device.h"

#include <fmt/format.h>

#include <array>
#include <cctype>
#include <cstddef>
#include <exception>
#include <fstream>
#include <sstream>

#include "gpu/driver.h"
#include "w4tune/error.h"

namespace w4tune {
namespace {

constexpr const char* kKernelModuleVersionFile = "/proc/driver/nvidia/version";

int attribute(CUdevice device, CUdevice_attribute which) {
  int value = 0;
  check(driver().device_get_attribute(&value, which, device), "cuDeviceGetAttribute");
  return value;
}

// Double data rate: two transfers a clock; the driver counts in kHz and bits.
double estimated_dram_gbps(CUdevice device) {
  const double clock_khz = attribute(device, CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE);
  const double bus_bits = attribute(device, CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH);
  return 2.0 * clock_khz * 1e3 * bus_bits / 8.0 / 1e9;
}

bool is_release(std::string_view token) {
  bool dot = false;
  for (const char c : token) {
    if (c != '.' && std::isdigit(static_cast<unsigned char>(c)) == 0) return false;
    dot = dot || c == '.';
  }
  return dot;
}

}  // namespace

int device_count() noexcept {
  try {
    int count = 0;
    check(driver().device_get_count(&count), "cuDeviceGetCount");
    return count;
  } catch (const std::exception&) {
    return 0;
  }
}

std::string no_device_reason() {
  try {
    driver();
    return {};
  } catch (const Error& error) {
    return error.what();
  }
}

DeviceInfo query_device(int ordinal) {
  CUdevice device = 0;
  check(driver().device_get(&device, ordinal), "cuDeviceGet");
  std::array<char, 256> name{};
  check(driver().device_get_name(name.data(), static_cast<int>(name.size()), device),
        "cuDeviceGetName");

  DeviceInfo info;
  info.name = name.data();
  info.sm = 10 * attribute(device, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR) +
            attribute(device, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR);
  info.sm_count = attribute(device, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT);
  info.l2_bytes = static_cast<std::size_t>(attribute(device, CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE));
  info.smem_block_bytes = static_cast<std::size_t>(
      attribute(device, CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN));
  info.smem_sm_bytes = static_cast<std::size_t>(
      attribute(device, CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR));
  info.threads_per_sm = attribute(device, CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR);
  info.clock_mhz = attribute(device, CU_DEVICE_ATTRIBUTE_CLOCK_RATE) / 1000;

  const KnownDevice* known = find_known_device(info.name);
  info.dram_gbps = known != nullptr ? known->info.dram_gbps : estimated_dram_gbps(device);
  info.mma_tflops = known != nullptr ? known->info.mma_tflops : 0.0;
  return info;
}

std::string driver_version() {
  int version = 0;
  check(driver().driver_get_version(&version), "cuDriverGetVersion");
  return fmt::format("{}.{}", version / 1000, version % 1000 / 10);
}

std::string driver_release() {
  std::ifstream file(kKernelModuleVersionFile);
  std::stringstream text;
  text << file.rdbuf();
  return parse_driver_release(text.str());
}

std::string parse_driver_release(std::string_view text) {
  std::istringstream words{std::string(text)};
  for (std::string word; words >> word;) {
    if (is_release(word)) return word;
  }
  return {};
}

}  // namespace w4tune

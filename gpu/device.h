// The GPUs of this machine and the driver that runs them. Any thread may call these functions.
#pragma once

#include <string>
#include <string_view>

#include "core/device_info.h"

namespace w4tune {

// 0 where there is no driver or no GPU; never throws.
int device_count() noexcept;

// Why device_count() is 0, in one line with its remedy; empty where there is a GPU.
std::string no_device_reason();

// What the driver knows of a GPU. Bandwidth and matrix rate are the data sheet's for a known GPU;
// for another the bandwidth comes from memory clock and bus width, and the matrix rate is 0.
DeviceInfo query_device(int ordinal);

// Newest CUDA version the driver supports: "13.0". Throws as driver() does.
std::string driver_version();

// Release of the driver's kernel module, e.g. "580.95.05"; empty where the system does not tell.
std::string driver_release();

// The release within the kernel module's own words; empty where there is none.
std::string parse_driver_release(std::string_view text);

}  // namespace w4tune

// What a probe measured, as a table for people.
#pragma once

#include <string>

#include "core/device_info.h"

namespace w4tune {

// Requires a device with a calibration.
std::string probe_table(const DeviceInfo& device);

}  // namespace w4tune

// Image: what the runtime loads from a cache file, once; afterwards the file may go.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "core/device_info.h"
#include "core/winner.h"

namespace w4tune {

struct Image {
  struct Device {
    DeviceInfo info;
    std::vector<Winner> winners;  // those that serve, sorted by problem and m
    std::vector<std::pair<std::string, std::string>> device_kernels;  // name, compilation key
  };

  std::vector<Device> devices;            // those that were wanted, by name
  std::vector<DeviceInfo> other_devices;  // those that were not: for messages
  // Compilation key to cubin. Has every key of `devices`.
  std::map<std::string, std::string> cubins;
};

// Reads the winners, kernels and cubins of the devices for which `wanted` holds, as of one moment
// even while others write. Every cubin is checked against its SHA-256. Throws as Store::open does.
Image load_image(const std::string& path, const std::function<bool(const DeviceInfo&)>& wanted);

}  // namespace w4tune

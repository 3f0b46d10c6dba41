// Which rows of a cache file serve a GPU: its own, else those of its nearest relative.
#pragma once

#include <map>
#include <optional>
#include <string>

#include "cache/image.h"
#include "core/device_info.h"

namespace w4tune {

struct DeviceRows {
  Image::Device device;                       // whose rows serve; has at least one winner
  std::map<std::string, std::string> cubins;  // compilation key to cubin
  bool is_same_gpu = false;                   // false: another GPU of the same architecture
};

// Rows of exactly `gpu` (name, sm and sm_count), else of the GPU with its sm and the closest
// sm_count. Throws Error{kNotFound} when the file has neither, and as load_image does.
DeviceRows load_device_rows(const std::string& path, const DeviceInfo& gpu);

// The same; empty instead of kNotFound for a file that is there and has no such rows.
std::optional<DeviceRows> find_device_rows(const std::string& path, const DeviceInfo& gpu);

// The same by name, ignoring case, or by alias. A GPU that only the file knows is found by name.
DeviceRows load_device_rows(const std::string& path, const std::string& name_or_alias);

// From a file of defaults: the rows whose code runs on `gpu`, those of its major architecture with
// the highest minor one that is not above its own. Throws Error{kNotFound} when there are none.
DeviceRows load_default_rows(const std::string& path, const DeviceInfo& gpu);

}  // namespace w4tune

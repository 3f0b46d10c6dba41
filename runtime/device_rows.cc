#include "runtime/device_rows.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <functional>
#include <optional>
#include <string_view>
#include <utility>

#include "w4tune/error.h"

namespace w4tune {
namespace {

using Wanted = std::function<bool(const DeviceInfo&)>;

bool equals_ignoring_case(std::string_view a, std::string_view b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](unsigned char x, unsigned char y) {
    return std::tolower(x) == std::tolower(y);
  });
}

// The wanted device with winners whose number of SMs is closest to `sm_count`.
std::optional<DeviceRows> closest(Image& image, int sm_count) {
  Image::Device* best = nullptr;
  const auto distance = [&](const Image::Device& device) {
    return std::abs(device.info.sm_count - sm_count);
  };
  for (Image::Device& device : image.devices) {
    if (device.winners.empty()) continue;
    if (best == nullptr || distance(device) < distance(*best)) best = &device;
  }
  if (best == nullptr) return std::nullopt;
  return DeviceRows{
      .device = std::move(*best), .cubins = std::move(image.cubins), .is_same_gpu = false};
}

std::string list(const Image& image) {
  std::string text;
  const auto add = [&](const DeviceInfo& info) {
    text += fmt::format("{}{} (sm {}, {} SMs)", text.empty() ? "" : ", ", info.name, info.sm,
                        info.sm_count);
  };
  for (const Image::Device& device : image.devices) add(device.info);
  for (const DeviceInfo& info : image.other_devices) add(info);
  return text.empty() ? "nothing" : text;
}

[[noreturn]] void throw_not_found(const std::string& path, const std::string& gpu,
                                  const Image& image, std::string_view command) {
  throw Error(ErrorCode::kNotFound,
              fmt::format("no kernels for {} in '{}': the file has rows for {}. Run: {}", gpu, path,
                          list(image), command));
}

// Rows of the same GPU, else of a related one; `other_rows` is what the file has instead of them.
std::optional<DeviceRows> find(const std::string& path, const DeviceInfo& gpu,
                               const Wanted& is_same, Image& other_rows) {
  Image own = load_image(path, is_same);
  if (auto rows = closest(own, gpu.sm_count)) {
    rows->is_same_gpu = true;
    return rows;
  }
  // A second look, so that the common case never reads what it does not need.
  other_rows =
      load_image(path, [&](const DeviceInfo& other) { return gpu.sm != 0 && other.sm == gpu.sm; });
  return closest(other_rows, gpu.sm_count);
}

Wanted same_as(const DeviceInfo& gpu) {
  return [gpu](const DeviceInfo& other) {
    return other.name == gpu.name && other.sm == gpu.sm && other.sm_count == gpu.sm_count;
  };
}

DeviceRows load(const std::string& path, const DeviceInfo& gpu, const Wanted& is_same,
                std::string_view command) {
  Image related;
  if (auto rows = find(path, gpu, is_same, related)) return std::move(*rows);
  const std::string name = gpu.sm == 0
                               ? fmt::format("'{}'", gpu.name)
                               : fmt::format("{} (sm {}, {} SMs)", gpu.name, gpu.sm, gpu.sm_count);
  throw_not_found(path, name, related, command);
}

}  // namespace

DeviceRows load_device_rows(const std::string& path, const DeviceInfo& gpu) {
  return load(path, gpu, same_as(gpu), "w4tune --gpu auto");
}

std::optional<DeviceRows> find_device_rows(const std::string& path, const DeviceInfo& gpu) {
  Image other_rows;
  return find(path, gpu, same_as(gpu), other_rows);
}

DeviceRows load_device_rows(const std::string& path, const std::string& name_or_alias) {
  const KnownDevice* known = find_known_device(name_or_alias);
  DeviceInfo gpu;
  gpu.name = name_or_alias;
  if (known != nullptr) gpu = known->info;
  const std::string command = known == nullptr
                                  ? "w4tune --gpu auto, on that GPU"
                                  : fmt::format("w4tune --gpu {}", known->aliases.front());
  return load(
      path, gpu,
      [&](const DeviceInfo& other) { return equals_ignoring_case(other.name, gpu.name); }, command);
}

DeviceRows load_default_rows(const std::string& path, const DeviceInfo& gpu) {
  Image image = load_image(path, [&](const DeviceInfo& other) {
    return other.sm / 10 == gpu.sm / 10 && other.sm <= gpu.sm;
  });
  Image::Device* best = nullptr;
  for (Image::Device& device : image.devices) {
    if (best == nullptr || device.info.sm > best->info.sm) best = &device;
  }
  if (best == nullptr) {
    throw Error(ErrorCode::kNotFound,
                fmt::format("no default kernels for {} (sm {}) in '{}': the file has them for {}. "
                            "Tune this GPU: w4tune --gpu auto",
                            gpu.name, gpu.sm, path, list(image)));
  }
  return {.device = std::move(*best), .cubins = std::move(image.cubins), .is_same_gpu = false};
}

}  // namespace w4tune

#include "core/kernel_config.h"

#include <fmt/format.h>

#include <charconv>

#include "core/check.h"
#include "w4tune/error.h"

namespace w4tune {

int KernelConfig::at(std::string_view name) const {
  for (const auto& [parameter, value] : parameters) {
    if (parameter == name) return value;
  }
  W4_CHECK(false, "no such parameter in this kernel configuration");
}

std::string to_string(const KernelConfig& config) {
  std::string text = config.family;
  for (const auto& [name, value] : config.parameters) text += fmt::format(" {}={}", name, value);
  return text;
}

KernelConfig parse_kernel_config(std::string_view text) {
  KernelConfig config;
  std::string_view rest = text;
  while (!rest.empty()) {
    const auto end = rest.find(' ');
    const std::string_view part = rest.substr(0, end);
    rest.remove_prefix(end == std::string_view::npos ? rest.size() : end + 1);
    if (config.family.empty()) {
      config.family = part;
      continue;
    }
    const auto equals = part.find('=');
    int value = 0;
    bool ok = equals != std::string_view::npos && equals > 0;
    if (ok) {
      const auto* last = part.data() + part.size();
      const auto result = std::from_chars(part.data() + equals + 1, last, value);
      ok = result.ec == std::errc{} && result.ptr == last;
    }
    if (!ok) {
      throw Error(ErrorCode::kInvalidArgument,
                  fmt::format("kernel configuration '{}': '{}' is not name=number. "
                              "Copy one from 'w4tune show --json'.",
                              text, part));
    }
    config.parameters.emplace_back(part.substr(0, equals), value);
  }
  if (config.family.empty()) {
    throw Error(ErrorCode::kInvalidArgument,
                "kernel configuration is empty. "
                "Copy one from 'w4tune show --json'.");
  }
  return config;
}

}  // namespace w4tune

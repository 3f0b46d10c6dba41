// KernelConfig: one point of a family's compile-time space. Its text is canonical: equal
// configurations have equal texts, and the text is what the cache stores.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace w4tune {

struct KernelConfig {
  std::string family;                                   // stable id, e.g. "mma_pipe"
  std::vector<std::pair<std::string, int>> parameters;  // in the family's order

  auto operator<=>(const KernelConfig&) const = default;

  // Value of a parameter; a name the configuration does not have is a programmer's error.
  [[nodiscard]] int at(std::string_view name) const;
};

// "mma_pipe row_tile=128 token_tile=16 ..."
std::string to_string(const KernelConfig& config);

// Inverse of to_string; throws Error{kInvalidArgument} naming the part that does not fit.
KernelConfig parse_kernel_config(std::string_view text);

}  // namespace w4tune

// Uses an installed libw4tune from C++: headers, link and load; an Error crosses the library's border.

#include <w4tune/dispatcher.h>
#include <w4tune/error.h>
#include <w4tune/packing.h>

int main() {
  const w4tune::Problem problem{.n = 4096, .k = 1024};
  if (w4tune::packed_weight_bytes(problem) != std::size_t{4096} * 1024 / 2) return 1;
  try {
    w4tune::Dispatcher::open("no-such-file.db", {.device = -1, .device_name = "a40"});
  } catch (const w4tune::Error& error) {
    return error.code() == w4tune::ErrorCode::kNotFound ? 0 : 2;
  }
  return 3;
}

// What compiling one kernel yields: a cubin with its resources, or the reason why there is none.
#pragma once

#include <string>

namespace w4tune {

// Text that a kernel includes by this name.
struct Header {
  std::string name;
  std::string text;
};

struct Compilation {
  std::string key;      // SHA-256 of source, options and compiler version
  std::string arch;     // "sm_86"
  std::string cubin;    // empty when the compilation failed
  std::string log;      // the compiler's words
  int registers = 0;    // per thread
  int spill_bytes = 0;  // stores and loads together
  int static_smem_bytes = 0;

  [[nodiscard]] bool ok() const { return !cubin.empty(); }
};

}  // namespace w4tune

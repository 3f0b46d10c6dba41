// Where the tests find w4tune, the program.
#pragma once

#include <cstdlib>
#include <string>

namespace w4tune {

// The variable serves where the tests run on another machine than the one that built them.
inline std::string program_under_test() {
  const char* path = std::getenv("W4TUNE_CLI");
  return path != nullptr ? path : W4TUNE_CLI;
}

}  // namespace w4tune

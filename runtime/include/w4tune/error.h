// The one exception type of w4tune. The message says what failed, why, and what to do about it.
#pragma once

#include <stdexcept>
#include <string>

#include "w4tune/export.h"

namespace w4tune {

// Persisted by the C ABI (w4tune_status); do not change the values of existing entries.
enum class ErrorCode : int {
  kInvalidArgument = 1,  // a value the caller passed
  kNotFound = 2,         // a file, a row or a kernel that is not there
  kEnvironment = 3,      // a missing or broken CUDA toolkit, driver or library
  kNoDevice = 4,         // no GPU that can be used
  kDevice = 5,           // the GPU or its driver reported an error
  kDatabase = 6,         // the SQLite file is corrupt, locked, older, newer or not ours
  kInternal = 7,         // a defect of w4tune
};

class W4TUNE_API Error : public std::runtime_error {
 public:
  Error(ErrorCode code, const std::string& message) : std::runtime_error(message), code_(code) {}
  [[nodiscard]] ErrorCode code() const noexcept { return code_; }

 private:
  ErrorCode code_;
};

}  // namespace w4tune

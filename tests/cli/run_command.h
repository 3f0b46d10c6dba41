// Runs a shell command and keeps what it prints on standard output. LeakSanitizer is off in it:
// GCC 12's can die at the end of a process that has run NVRTC ("Tracer caught signal 11").
#pragma once

#include <sys/wait.h>

#include <array>
#include <cstdio>
#include <string>

namespace w4tune {

struct CommandResult {
  int exit_code = -1;  // 128 when a signal ended it
  std::string out;
};

inline CommandResult run_command(const std::string& command) {
  FILE* pipe = ::popen(("export ASAN_OPTIONS=detect_leaks=0; " + command).c_str(), "r");
  CommandResult result;
  std::array<char, 4096> buffer{};
  for (std::size_t n = 0; (n = std::fread(buffer.data(), 1, buffer.size(), pipe)) > 0;) {
    result.out.append(buffer.data(), n);
  }
  const int status = ::pclose(pipe);
  result.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : 128;
  return result;
}

}  // namespace w4tune

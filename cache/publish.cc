#include "cache/publish.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <system_error>

#include "w4tune/error.h"

namespace w4tune {
namespace {

namespace fs = std::filesystem;

fs::path folder_of(const fs::path& target) {
  return target.has_parent_path() ? target.parent_path() : fs::path(".");
}

// Brings a file, or the names in a folder, to the disk.
void synchronise(std::string_view verb, const std::string& path) {
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  const bool ok = descriptor >= 0 && ::fsync(descriptor) == 0;
  const int error = errno;
  if (descriptor >= 0) ::close(descriptor);
  if (!ok) fail_target(verb, path, error, "Check the disk.");
}

}  // namespace

void fail_target(std::string_view verb, const std::string& target, int system_error,
                 std::string_view remedy) {
  throw Error(ErrorCode::kDatabase,
              fmt::format("cannot {} '{}': {}. {}", verb, target,
                          std::generic_category().message(system_error), remedy));
}

void check_target(std::string_view verb, const std::string& target) {
  const auto invalid = [&](std::string_view reason) {
    throw Error(ErrorCode::kInvalidArgument,
                fmt::format("cannot {} '{}': {}", verb, target, reason));
  };
  const fs::path folder = folder_of(target);
  std::error_code error;
  if (!fs::is_directory(folder, error)) {
    invalid(fmt::format("there is no folder '{}'. Make it first.", folder.string()));
  }
  if (fs::is_directory(target, error)) invalid("it is a folder. Give the name of a file.");
  if (::access(folder.c_str(), W_OK) != 0) {
    fail_target(verb, target, errno, "Use a folder you may write to.");
  }
}

void publish(std::string_view verb, const std::string& temporary, const std::string& target) {
  synchronise(verb, temporary);
  std::error_code error;
  fs::rename(temporary, target, error);
  if (error) fail_target(verb, target, error.value(), "Check the permissions of the folder.");
  synchronise(verb, folder_of(target).string());
}

}  // namespace w4tune

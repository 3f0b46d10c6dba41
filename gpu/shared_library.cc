#include "gpu/shared_library.h"

#include <dlfcn.h>
#include <fmt/format.h>

#include <mutex>
#include <utility>

#include "w4tune/error.h"

namespace w4tune {
namespace {

constexpr std::string_view kToolkitFolders[] = {
    "/usr/local/cuda/lib64",
    "/usr/local/cuda/targets/x86_64-linux/lib",
};
constexpr std::string_view kToolkitSuffixes[] = {".so.13", ".so.12", ".so"};

std::mutex toolkit_mutex;

std::string& toolkit_folder() {
  static std::string folder;
  return folder;
}

// dlerror's words for a candidate that is not there; any other words mean that it is there but
// broken.
bool is_missing(std::string_view error, std::string_view candidate) {
  return error.starts_with(fmt::format("{}: cannot open shared object file", candidate));
}

}  // namespace

SharedLibrary SharedLibrary::open(std::span<const std::string> candidates, std::string_view what,
                                  std::string_view remedy, bool prefer_loaded) {
  for (const std::string& candidate : candidates) {
    if (!prefer_loaded) break;
    if (void* handle = dlopen(candidate.c_str(), RTLD_NOW | RTLD_LOCAL | RTLD_NOLOAD)) {
      return {handle, candidate, what, remedy};
    }
  }
  std::string reason;
  bool reason_is_missing = true;
  for (const std::string& candidate : candidates) {
    if (void* handle = dlopen(candidate.c_str(), RTLD_NOW | RTLD_LOCAL)) {
      return {handle, candidate, what, remedy};
    }
    const char* words = dlerror();
    const std::string error = words != nullptr ? words : candidate;
    const bool missing = is_missing(error, candidate);
    if (reason.empty() || (reason_is_missing && !missing)) {
      reason = error;
      reason_is_missing = missing;
    }
  }
  throw Error(ErrorCode::kEnvironment, fmt::format("cannot load {}: {}. {}", what, reason, remedy));
}

SharedLibrary::SharedLibrary(void* handle, std::string path, std::string_view what,
                             std::string_view remedy)
    : handle_(handle), path_(std::move(path)), what_(what), remedy_(remedy) {}

SharedLibrary::SharedLibrary(SharedLibrary&& other) noexcept
    : handle_(std::exchange(other.handle_, nullptr)),
      path_(std::move(other.path_)),
      what_(std::move(other.what_)),
      remedy_(std::move(other.remedy_)) {}

SharedLibrary& SharedLibrary::operator=(SharedLibrary&& other) noexcept {
  std::swap(handle_, other.handle_);
  std::swap(path_, other.path_);
  std::swap(what_, other.what_);
  std::swap(remedy_, other.remedy_);
  return *this;
}

SharedLibrary::~SharedLibrary() {
  if (handle_ != nullptr) dlclose(handle_);
}

void* SharedLibrary::address_of(const char* name) const {
  if (void* address = dlsym(handle_, name)) return address;
  throw Error(ErrorCode::kEnvironment,
              fmt::format("cannot use {}: {} has no {}, so it is too old. {}", what_, path_, name,
                          remedy_));
}

void search_toolkit_in(std::string folder) {
  const std::lock_guard lock(toolkit_mutex);
  toolkit_folder() = std::move(folder);
}

std::string searched_toolkit_folder() {
  const std::lock_guard lock(toolkit_mutex);
  return toolkit_folder();
}

std::vector<std::string> toolkit_candidates(std::string_view stem) {
  std::vector<std::string> prefixes;
  if (const std::string folder = searched_toolkit_folder(); !folder.empty()) {
    prefixes.push_back(folder + "/");
  }
  prefixes.emplace_back();
  for (const std::string_view folder : kToolkitFolders) {
    prefixes.push_back(fmt::format("{}/", folder));
  }
  std::vector<std::string> candidates;
  for (const std::string& prefix : prefixes) {
    for (const std::string_view suffix : kToolkitSuffixes) {
      candidates.push_back(fmt::format("{}{}{}", prefix, stem, suffix));
    }
  }
  return candidates;
}

}  // namespace w4tune

#include "cli/find_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <vector>

#include "w4tune/error.h"

namespace w4tune {
namespace {

namespace fs = std::filesystem;

constexpr const char* kResults = "results";

}  // namespace

std::string find_report(const std::string& name) {
  std::error_code ignored;
  if (fs::exists(name, ignored)) return name;
  std::vector<std::string> found;
  for (fs::recursive_directory_iterator it(kResults, ignored), end; it != end;
       it.increment(ignored)) {
    if (it->path().extension() != ".json" && it->path().extension() != ".db") continue;
    const std::string path = it->path().lexically_relative(kResults).generic_string();
    const std::string stem = fs::path(path).replace_extension().generic_string();
    const auto ends_so = [&](const std::string& text) {
      const std::string whole = "/" + text;
      const std::string part = "/" + name;
      return whole.size() >= part.size() &&
             whole.compare(whole.size() - part.size(), part.size(), part) == 0;
    };
    if (ends_so(path) || ends_so(stem)) found.push_back(it->path().generic_string());
  }
  if (found.size() == 1) return found.front();
  if (found.empty()) {
    throw Error(ErrorCode::kNotFound,
                fmt::format("report {} is neither a file nor a name in {}/. Check the path.", name,
                            kResults));
  }
  std::sort(found.begin(), found.end());
  throw Error(ErrorCode::kInvalidArgument,
              fmt::format("{} may be {}. Say which.", name, fmt::join(found, " or ")));
}

}  // namespace w4tune

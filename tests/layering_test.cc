// Who may know whom: reads the #include lines of every source and fails on an arrow that
// docs/architecture.md does not draw. Also: nothing below cli/ prints or reads the environment.

#include <gtest/gtest.h>

#include <cctype>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

namespace w4tune {
namespace {

namespace fs = std::filesystem;
using Names = std::set<std::string>;

const fs::path kRoot = W4TUNE_SOURCE_DIR;

// Folder -> folders it may include. tests and bench may include anything.
const std::map<std::string, Names> kMayInclude = {
    {"core", {"core"}},
    {"gpu", {"gpu", "core"}},
    {"search", {"search", "core"}},
    {"cache", {"cache", "core"}},
    {"templates", {"templates", "core", "search"}},
    {"tuner", {"tuner", "core", "search", "templates", "gpu", "cache"}},
    {"runtime", {"runtime", "core", "gpu", "cache"}},
    {"cli", {"cli", "core", "search", "templates", "gpu", "cache", "tuner", "runtime"}},
    {"python", {"runtime"}},
};
const Names kMayIncludeAnything = {"tests", "bench"};

// Third-party header (its path up to the first slash, else whole) -> folders that may include it.
const std::map<std::string, Names> kThirdParty = {
    {"fmt", {"core", "gpu", "search", "cache", "templates", "tuner", "runtime", "cli"}},
    {"sodium.h", {"core"}},
    {"sqlite3.h", {"cache"}},
    {"nlohmann", {"tuner", "cli"}},
    {"zlib.h", {"tuner"}},
    {"CLI", {"cli"}},
    {"mujs.h", {"cli"}},
    {"cuda.h", {"gpu", "tuner", "runtime"}},
    {"nvrtc.h", {"gpu"}},
    {"cublasLt.h", {"gpu"}},
    {"Python.h", {"python"}},
    {"boost", {}},
    {"gtest", {}},
    {"gmock", {}},
    {"benchmark", {}},
};

// Generated header -> the folder that owns it.
const std::map<std::string, std::string> kGenerated = {
    {"generated/version.h", "core"},
    {"generated/cache_sql.h", "cache"},
    {"generated/device_sources.h", "templates"},
    {"generated/page_files.h", "cli"},
};

// Public headers that depend on the standard library alone: the vocabulary of every folder.
const Names kVocabulary = {"w4tune/types.h", "w4tune/error.h"};

struct Source {
  std::string path;  // from the repository's root
  std::string text;

  [[nodiscard]] std::string folder() const { return path.substr(0, path.find('/')); }
  [[nodiscard]] bool is_device() const { return path.rfind("templates/device/", 0) == 0; }
  [[nodiscard]] bool is_public() const { return path.rfind("runtime/include/", 0) == 0; }
  [[nodiscard]] bool is_nvrtc() const { return path.rfind("gpu/nvrtc", 0) == 0; }
};

struct Include {
  std::string name;
  bool is_quoted;
};

std::string read(const fs::path& path) {
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

std::vector<Source> sources() {
  const Names extensions = {".h", ".cc", ".c", ".cuh", ".cu"};
  Names folders = kMayIncludeAnything;
  for (const auto& [folder, allowed] : kMayInclude) folders.insert(folder);
  std::vector<Source> result;
  for (const std::string& folder : folders) {
    for (const auto& entry : fs::recursive_directory_iterator(kRoot / folder)) {
      if (extensions.count(entry.path().extension().string()) == 0) continue;
      result.push_back({fs::relative(entry.path(), kRoot).generic_string(), read(entry.path())});
    }
  }
  return result;
}

std::vector<std::string> lines_of(const std::string& text) {
  std::istringstream stream(text);
  std::vector<std::string> lines;
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}

std::string_view without_spaces(std::string_view text) {
  const auto begin = text.find_first_not_of(" \t");
  return begin == std::string_view::npos ? "" : text.substr(begin);
}

std::vector<Include> includes(const std::string& text) {
  constexpr std::string_view kDirective = "include";
  std::vector<Include> result;
  for (const std::string& line : lines_of(text)) {
    std::string_view rest = without_spaces(line);
    if (rest.empty() || rest.front() != '#') continue;
    rest = without_spaces(rest.substr(1));
    if (rest.substr(0, kDirective.size()) != kDirective) continue;
    rest = without_spaces(rest.substr(kDirective.size()));
    if (rest.empty() || (rest.front() != '"' && rest.front() != '<')) continue;
    const bool is_quoted = rest.front() == '"';
    const auto end = rest.find(is_quoted ? '"' : '>', 1);
    result.push_back({std::string(rest.substr(1, end - 1)), is_quoted});
  }
  return result;
}

// Whether `code` calls or names one of the things that only cli/ may use.
bool prints_or_reads_environment(std::string_view code) {
  static const std::vector<std::string_view> names = {
      "printf", "fprintf",       "vprintf",   "puts",      "fputs",     "putchar",   "getenv",
      "setenv", "secure_getenv", "std::cout", "std::cerr", "std::clog", "fmt::print"};
  const auto is_word = [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) || c == '_';
  };
  for (const std::string_view name : names) {
    for (auto at = code.find(name); at != std::string_view::npos; at = code.find(name, at + 1)) {
      const auto end = at + name.size();
      const bool starts = at == 0 || !is_word(code[at - 1]);
      if (starts && (end == code.size() || !is_word(code[end]))) return true;
    }
  }
  return false;
}

// Folder that a quoted include leads to; empty when it leads nowhere.
std::string owner(const std::string& name) {
  if (name.rfind("w4tune/", 0) == 0) {
    return fs::exists(kRoot / "runtime/include" / name) ? "runtime" : "";
  }
  if (const auto generated = kGenerated.find(name); generated != kGenerated.end()) {
    return generated->second;
  }
  return fs::exists(kRoot / name) ? name.substr(0, name.find('/')) : "";
}

// Device text is compiled by NVRTC from embedded files, which know each other by bare name.
std::string complaint_of_device(const Include& include) {
  const bool is_embedded =
      include.name == "gemm_args.h" || fs::exists(kRoot / "templates/device" / include.name);
  return include.is_quoted && is_embedded ? "" : "device text includes nothing but device headers";
}

std::string complaint_of_public(const Include& include) {
  if (include.name.rfind("w4tune/", 0) == 0) return "";
  static const Names c_headers = {"stddef.h", "stdint.h", "stdbool.h"};
  const bool is_standard = !include.is_quoted && (include.name.find('.') == std::string::npos ||
                                                  c_headers.count(include.name) != 0);
  return is_standard ? "" : "an installed header includes the standard library and w4tune/ alone";
}

std::string complaint_of_third_party(const std::string& folder, const Include& include) {
  std::string package = include.name.substr(0, include.name.find('/'));
  if (package.rfind("cu", 0) == 0 && kThirdParty.count(package) == 0 &&
      package.find(".h") != std::string::npos) {
    return "no header of the CUDA toolkit but cuda.h, nvrtc.h and cublasLt.h";
  }
  const auto known = kThirdParty.find(package);
  if (known == kThirdParty.end() || known->second.count(folder) != 0) return "";
  return "this third-party header does not belong in " + folder + "/";
}

// Why `source` may not include this; empty when it may.
std::string complaint(const Source& source, const Include& include) {
  if (source.is_device()) return complaint_of_device(include);
  if (source.is_public()) return complaint_of_public(include);
  const std::string folder = source.folder();
  if (kMayIncludeAnything.count(folder) != 0) return "";
  if (!include.is_quoted) {
    if (include.name == "nvrtc.h" && !source.is_nvrtc()) return "only gpu/nvrtc* knows NVRTC";
    return complaint_of_third_party(folder, include);
  }
  if (kVocabulary.count(include.name) != 0) return "";
  const std::string target = owner(include.name);
  if (target.empty()) return "no such header: includes are rooted at the repository";
  if (include.name.rfind("gpu/nvrtc", 0) == 0 &&
      (folder == "runtime" || (folder == "gpu" && !source.is_nvrtc()))) {
    return "the driver half and the runtime do not know NVRTC";
  }
  if (kMayInclude.at(folder).count(target) == 0) return folder + "/ may not know " + target + "/";
  if (folder == "python" && include.name != "w4tune/w4tune.h")
    return "python/ knows the C ABI alone";
  return "";
}

TEST(Layering, EveryIncludeIsAnArrowOfTheArchitecture) {
  const std::vector<Source> all = sources();
  ASSERT_FALSE(all.empty());
  for (const Source& source : all) {
    for (const Include& include : includes(source.text)) {
      const std::string why = complaint(source, include);
      EXPECT_TRUE(why.empty()) << source.path << " includes " << include.name << ": " << why;
    }
  }
}

TEST(Layering, OnlyTheCommandLinePrintsAndReadsTheEnvironment) {
  const Names exempt = {"core/check.h"};  // says why the program ends
  for (const Source& source : sources()) {
    const std::string folder = source.folder();
    if (folder == "cli" || kMayIncludeAnything.count(folder) != 0) continue;
    if (exempt.count(source.path) != 0) continue;
    int number = 0;
    for (const std::string& line : lines_of(source.text)) {
      ++number;
      EXPECT_FALSE(prints_or_reads_environment(line.substr(0, line.find("//"))))
          << source.path << ':' << number << ": " << line;
    }
  }
}

TEST(Layering, TheRulesCatchWhatTheyForbid) {
  const auto why = [](const std::string& path, const std::string& line) {
    const auto found = includes(line);
    return found.size() == 1 ? complaint({path, line}, found.front()) : "one include per line";
  };
  EXPECT_EQ(why("core/x.cc", "#include \"core/problem.h\""), "");
  EXPECT_EQ(why("search/x.cc", "#include \"w4tune/error.h\""), "");
  EXPECT_EQ(why("cli/x.cc", "#include <CLI/CLI.hpp>"), "");
  EXPECT_EQ(why("gpu/nvrtc.cc", "#include <nvrtc.h>"), "");
  EXPECT_EQ(why("tests/core/x.cc", "#include <gtest/gtest.h>"), "");
  EXPECT_NE(why("core/x.cc", "#include \"w4tune/export.h\""), "");
  EXPECT_NE(why("core/x.cc", "#include \"problem.h\""), "");
  EXPECT_NE(why("search/x.cc", "#include <cuda.h>"), "");
  EXPECT_NE(why("search/x.cc", "#include <zlib.h>"), "");
  EXPECT_EQ(why("tuner/x.cc", "#include <zlib.h>"), "");
  EXPECT_NE(why("gpu/module.cc", "#include <nvrtc.h>"), "");
  EXPECT_NE(why("gpu/module.cc", "#include <cuda_runtime.h>"), "");
  EXPECT_NE(why("runtime/x.cc", "#include <nlohmann/json.hpp>"), "");
  EXPECT_NE(why("runtime/include/w4tune/x.h", "#include \"core/problem.h\""), "");
  EXPECT_NE(why("runtime/include/w4tune/x.h", "#include <fmt/format.h>"), "");
  EXPECT_NE(why("templates/device/x.cuh", "#include <cuda_fp16.h>"), "");
  EXPECT_TRUE(prints_or_reads_environment("  std::printf(\"x\");"));
  EXPECT_TRUE(prints_or_reads_environment("std::cout << x;"));
  EXPECT_FALSE(prints_or_reads_environment("std::snprintf(buffer, size, format);"));
}

}  // namespace
}  // namespace w4tune

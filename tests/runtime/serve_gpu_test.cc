// The whole way: tune, export, and serve the export from a process that has the runtime alone.

#include <gtest/gtest.h>
#include <sys/wait.h>

#include <array>
#include <cstdio>
#include <filesystem>
#include <string>

#include "cache/store.h"
#include "gpu/device.h"
#include "tests/cache/samples.h"
#include "tests/runtime/small_cache.h"

namespace w4tune {
namespace {

namespace fs = std::filesystem;

// w4tune_serve_check lies beside the tests, wherever they were carried.
fs::path serve_check() {
  return fs::read_symlink("/proc/self/exe").parent_path() / "w4tune_serve_check";
}

TEST(ServeGpuTest, AFreshProcessServesRaggedTokensFromTheExport) {
  if (device_count() == 0) GTEST_SKIP() << no_device_reason();
  const samples::Folder folder;
  const std::string cache = folder.file("w4tune.db");
  const std::string exported = folder.file("exported.db");
  constexpr Problem kEven{
      .op = Op::kGemm, .n = 1024, .k = 1024, .group_size = 128, .dtype = Dtype::kF16};
  constexpr Problem kRagged{
      .op = Op::kGemm, .n = 1040, .k = 512, .group_size = 64, .dtype = Dtype::kBF16};
  constexpr Problem kGeglu{
      .op = Op::kGeglu, .n = 528, .k = 512, .group_size = 128, .dtype = Dtype::kF16};
  samples::tune_small_cache(cache, {kEven, kRagged, kGeglu}, {1, 16, 100, 1024});
  Store::open(cache, Store::Mode::kReadOnly).export_to(exported);
  fs::remove(cache);

  const std::string command = "'" + serve_check().string() + "' '" + exported + "' 2>&1";
  std::FILE* child = ::popen(command.c_str(), "r");
  ASSERT_NE(child, nullptr);
  std::string output;
  std::array<char, 256> chunk{};
  while (std::fgets(chunk.data(), chunk.size(), child) != nullptr) output += chunk.data();
  const int status = ::pclose(child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << output;
}

}  // namespace
}  // namespace w4tune

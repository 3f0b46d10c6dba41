// What happens where a library, the driver or the GPU is missing. Needs none of them.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <functional>
#include <string>
#include <vector>

#include "gpu/context.h"
#include "gpu/cublaslt.h"
#include "gpu/device.h"
#include "gpu/driver.h"
#include "gpu/shared_library.h"
#include "w4tune/error.h"

namespace w4tune {
namespace {

Error error_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& error) {
    return error;
  }
  return {ErrorCode::kInternal, "no error was thrown"};
}

bool is_one_line(const std::string& text) {
  return !text.empty() && text.find('\n') == std::string::npos && text.back() == '.';
}

TEST(SharedLibraryTest, OpensTheFirstCandidateThatLoads) {
  const std::vector<std::string> candidates = {"libw4_missing.so.1", "libm.so.6"};
  const auto library = SharedLibrary::open(candidates, "the maths library", "Install libm.");
  EXPECT_EQ(library.path(), "libm.so.6");
  EXPECT_DOUBLE_EQ(library.symbol<double (*)(double)>("sqrt")(9.0), 3.0);
}

TEST(SharedLibraryTest, MissNamesLibraryReasonAndRemedy) {
  const std::vector<std::string> candidates = {"libw4_missing.so.1", "libw4_missing.so"};
  const Error error = error_of([&] { SharedLibrary::open(candidates, "the thing", "Get it."); });
  EXPECT_EQ(error.code(), ErrorCode::kEnvironment);
  EXPECT_STREQ(error.what(),
               "cannot load the thing: libw4_missing.so.1: cannot open shared object file: No such "
               "file or directory. Get it.");
}

TEST(SharedLibraryTest, BrokenFileIsReportedRatherThanMissingOnes) {
  const std::string broken = ::testing::TempDir() + "libw4_broken.so";
  FILE* file = std::fopen(broken.c_str(), "w");
  ASSERT_NE(file, nullptr);
  std::fputs("not a library", file);
  std::fclose(file);
  const std::vector<std::string> candidates = {"libw4_missing.so.1", broken, "libw4_missing.so"};
  const Error error = error_of([&] { SharedLibrary::open(candidates, "the thing", "Get it."); });
  EXPECT_NE(std::string(error.what()).find(broken), std::string::npos) << error.what();
  std::remove(broken.c_str());
}

TEST(SharedLibraryTest, MissingSymbolIsNamed) {
  const std::vector<std::string> candidates = {"libm.so.6"};
  const auto library = SharedLibrary::open(candidates, "the maths library", "Update libm.");
  const Error error = error_of([&] { (void)library.symbol<void (*)()>("w4_no_such_symbol"); });
  EXPECT_EQ(error.code(), ErrorCode::kEnvironment);
  EXPECT_STREQ(
      error.what(),
      "cannot use the maths library: libm.so.6 has no w4_no_such_symbol, so it is too old. "
      "Update libm.");
}

TEST(SharedLibraryTest, ChosenFolderIsSearchedFirst) {
  search_toolkit_in("/opt/chosen");
  const auto candidates = toolkit_candidates("libnvrtc");
  search_toolkit_in("");
  EXPECT_EQ(candidates.front(), "/opt/chosen/libnvrtc.so.13");
  EXPECT_NE(std::find(candidates.begin(), candidates.end(), "libnvrtc.so.12"), candidates.end());
  EXPECT_EQ(toolkit_candidates("libnvrtc").front(), "libnvrtc.so.13");
}

TEST(DriverTest, WithoutGpuThrowsOneLineAndCountsZero) {
  if (device_count() > 0) GTEST_SKIP() << "this machine has a GPU";
  for (int attempt = 0; attempt < 2; ++attempt) {
    const Error error = error_of([] { driver(); });
    EXPECT_TRUE(error.code() == ErrorCode::kEnvironment || error.code() == ErrorCode::kNoDevice);
    EXPECT_TRUE(is_one_line(error.what())) << error.what();
    EXPECT_EQ(no_device_reason(), error.what());
  }
  EXPECT_THROW(Context(0), Error);
  EXPECT_THROW(query_device(0), Error);
}

TEST(CublasLtLibraryTest, VersionNeedsNoGpu) {
  if (!CublasLt::available()) GTEST_SKIP() << "cuBLASLt is not installed";
  EXPECT_GE(std::stoi(CublasLt::get().version()), 12) << CublasLt::get().version();
}

TEST(DriverReleaseTest, IsReadFromTheKernelModulesWords) {
  EXPECT_EQ(parse_driver_release("NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue "
                                 "Mar  5 22:23:56 UTC 2024\nGCC version:  gcc 12.2.0\n"),
            "550.54.15");
  EXPECT_EQ(
      parse_driver_release("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.95.05"
                           "  Release Build"),
      "580.95.05");
  EXPECT_EQ(parse_driver_release(""), "");
}

}  // namespace
}  // namespace w4tune

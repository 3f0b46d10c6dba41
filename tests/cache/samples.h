// Files and values the cache tests share.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include "cache/store.h"
#include "w4tune/error.h"

namespace w4tune::samples {

// An empty folder of one test, removed with it.
class Folder {
 public:
  Folder() {
    const auto* test = testing::UnitTest::GetInstance()->current_test_info();
    path_ = std::filesystem::path(testing::TempDir()) /
            (std::string("w4tune_") + test->test_suite_name() + "_" + test->name() + "_" +
             std::to_string(::getpid()));
    std::filesystem::remove_all(path_);
    std::filesystem::create_directories(path_);
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  ~Folder() {
    std::error_code ignored;
    std::filesystem::permissions(path_, std::filesystem::perms::owner_all, ignored);
    std::filesystem::remove_all(path_, ignored);
  }

  [[nodiscard]] const std::filesystem::path& path() const { return path_; }
  [[nodiscard]] std::string file(const std::string& name) const { return (path_ / name).string(); }

 private:
  std::filesystem::path path_;
};

inline std::string read_file(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

inline void write_file(const std::string& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

inline DeviceInfo device(const std::string& name = "NVIDIA A40") {
  return {.name = name,
          .sm = 86,
          .sm_count = 84,
          .l2_bytes = 6u << 20,
          .smem_block_bytes = 99u << 10,
          .smem_sm_bytes = 100u << 10,
          .threads_per_sm = 1536,
          .clock_mhz = 1740,
          .dram_gbps = 696.0,
          .mma_tflops = 149.7};
}

inline RunInfo run_info(const std::string& source_hash = "source-1") {
  return {.device = device(),
          .driver = "580.1",
          .nvrtc = "13.0",
          .version = "0.1.0",
          .commit = "abc",
          .source_hash = source_hash,
          .protocol_hash = "protocol-1",
          .protocol = "cold=3 reps=30",
          .seed = ~0ull,
          .copy_gbps = 0.0,
          .mma_tflops = 0.0,
          .started_at = "2025-01-01T00:00:00Z"};
}

inline Problem problem() {
  return {.op = Op::kGemm, .n = 16384, .k = 2048, .group_size = 128, .dtype = Dtype::kF16};
}

inline KernelConfig config(int row_tile = 128) {
  return {.family = "mma_pipe", .parameters = {{"row_tile", row_tile}, {"stages", 4}}};
}

inline Compilation compilation(const std::string& key = "key-1",
                               const std::string& cubin = "cubin of key-1") {
  return {.key = key,
          .arch = "sm_86",
          .cubin = cubin,
          .log = "ptxas info",
          .registers = 128,
          .spill_bytes = 8,
          .static_smem_bytes = 16};
}

inline Trial trial(int row_tile = 128, int m = 16) {
  return {.workload = {.problem = problem(), .m = m},
          .candidate = {.config = config(row_tile), .schedule = {.split_k = 4, .raster = 2}},
          .outcome = Outcome::kOk,
          .detail = "",
          .error = {.worst_ratio = 0.25, .relative_norm = 1e-4, .max_abs = 0.125},
          .time_us = {31.25, 30.1, 33.3},
          .clock_mhz = {1740.0, 1735.0, 0.0},
          .compilation_key = "key-1"};
}

inline Winner winner(int m, Provenance provenance, const std::string& key = "key-1") {
  return {.problem = problem(),
          .m = m,
          .m_lo = 0,
          .m_hi = 0,
          .provenance = provenance,
          .candidate = {.config = config(), .schedule = {.split_k = 4, .raster = 2}},
          .footprint = {.row_tile = 128,
                        .token_tile = 16,
                        .depth_tile = 64,
                        .threads = 256,
                        .smem_bytes = 65536},
          .compilation_key = key,
          .registers = 128,
          .spill_bytes = 8,
          .time_us_median = 30.1,
          .time_us = {30.0, 30.1, 30.2},
          .clock_mhz = {1740.0, 1741.0, 1742.0},
          .error = {.worst_ratio = 0.5, .relative_norm = 1e-3, .max_abs = 0.25},
          .floor_us = 24.5,
          .baseline_us = 61.0,
          .tie_set = {}};
}

// The winner with a composite beside it that is faster.
inline Winner composite_winner(int m, double time_us = 25.0) {
  Winner result = winner(m, Provenance::kMeasured);
  result.composite = Composite{.slice_rows = 4096,
                               .scratch_bytes = slice_scratch(problem(), 4096, m).total(),
                               .time_us_median = time_us,
                               .time_us = {time_us, time_us},
                               .error_worst_ratio = 0.75};
  return result;
}

// Expects `action` to throw an Error of this code, in one line that has this text in it.
template <class Action>
void expect_error(ErrorCode code, const std::string& text, Action action) {
  try {
    action();
    ADD_FAILURE() << "expected an error with: " << text;
  } catch (const Error& error) {
    const std::string message = error.what();
    EXPECT_EQ(error.code(), code) << message;
    EXPECT_NE(message.find(text), std::string::npos) << message;
    EXPECT_EQ(message.find('\n'), std::string::npos) << message;
  }
}

}  // namespace w4tune::samples

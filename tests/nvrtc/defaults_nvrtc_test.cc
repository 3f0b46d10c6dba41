// The file of default kernels: made without a GPU, found by the GPUs that it is for.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <string>
#include <vector>

#include "core/device_info.h"
#include "runtime/device_rows.h"
#include "runtime/table.h"
#include "tests/cache/samples.h"
#include "tuner/defaults.h"

namespace w4tune {
namespace {

TEST(Defaults, ServeEveryKindOfLayerOnEveryArchitectureTheyAreFor) {
  const samples::Folder folder;
  const std::string path = folder.file("defaults.db");
  std::vector<std::string> progress;
  const DefaultsSummary summary =
      write_defaults(path, 2, [&](const std::string& done) { progress.push_back(done); });
  EXPECT_EQ(summary.architectures, 2);
  EXPECT_EQ(summary.kernels, 64);
  EXPECT_EQ(progress.size(), 32U);
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder.path()), {}), 1);  // no rest

  for (const char* gpu : {"a100", "a40", "l40s", "h200"}) {
    const DeviceInfo info = find_known_device(gpu)->info;
    const DeviceRows rows = load_default_rows(path, info);
    EXPECT_EQ(rows.device.info.sm, info.sm < 90 ? 80 : 90);
    ASSERT_EQ(rows.device.device_kernels.size(), 1U);
    for (const Winner& winner : rows.device.winners) {
      EXPECT_LE(winner.footprint.smem_bytes, 99 << 10);  // of the smallest of them
      EXPECT_EQ(winner.spill_bytes, 0);
    }
    const Table table({}, false, rows.device.winners);
    for (const Op op : {Op::kGemm, Op::kGeglu}) {
      for (const Dtype dtype : {Dtype::kF16, Dtype::kBF16}) {
        for (const int group : {32, 64, 128, 320}) {
          const int k = group == 320 ? 320 : 384;
          for (const int m : {1, 16, 17, 5000}) {
            EXPECT_EQ(table.select({op, 48, k, group, dtype}, m).match, Match::kDefault);
          }
        }
      }
    }
  }
  for (const int sm : {75, 100, 120}) {
    DeviceInfo other = find_known_device("a40")->info;
    other.sm = sm;
    samples::expect_error(ErrorCode::kNotFound, "no default kernels",
                          [&] { (void)load_default_rows(path, other); });
  }
}

}  // namespace
}  // namespace w4tune

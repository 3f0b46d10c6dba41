#include "core/device_info.h"

#include <gtest/gtest.h>

#include <cctype>
#include <set>
#include <string>

namespace w4tune {
namespace {

TEST(DeviceInfo, IsFoundByAliasAndByName) {
  for (const char* name : {"a40", "A40", "NVIDIA A40", "nvidia a40"}) {
    const KnownDevice* found = find_known_device(name);
    ASSERT_NE(found, nullptr) << name;
    EXPECT_EQ(found->info.name, "NVIDIA A40");
  }
  EXPECT_EQ(find_known_device("a41"), nullptr);
  EXPECT_EQ(find_known_device(""), nullptr);
}

TEST(DeviceInfo, TheA40IsWhatItsDataSheetSays) {
  const DeviceInfo& a40 = find_known_device("a40")->info;
  EXPECT_EQ(a40.sm, 86);
  EXPECT_EQ(a40.sm_count, 84);
  EXPECT_EQ(a40.l2_bytes, std::size_t{6} << 20);
  EXPECT_EQ(a40.smem_block_bytes, std::size_t{99} << 10);
  EXPECT_EQ(a40.dram_gbps, 696.0);
}

TEST(DeviceInfo, EveryKnownDeviceIsWholeAndEveryAliasUnique) {
  std::set<std::string> names;
  for (const auto& [info, aliases] : known_devices()) {
    EXPECT_TRUE(names.insert(info.name).second) << info.name;
    EXPECT_GE(info.sm, 80);
    EXPECT_GT(info.sm_count, 0);
    EXPECT_GT(info.l2_bytes, 0U);
    EXPECT_GT(info.smem_sm_bytes, info.smem_block_bytes);
    EXPECT_GT(info.threads_per_sm, 0);
    EXPECT_GT(info.clock_mhz, 0);
    EXPECT_GT(info.dram_gbps, 0.0);
    EXPECT_GT(info.mma_tflops, 0.0);
    EXPECT_FALSE(aliases.empty()) << info.name;
    for (const auto alias : aliases) {
      EXPECT_TRUE(names.insert(std::string(alias)).second) << alias;
      for (const char c : alias) EXPECT_EQ(std::tolower(c), c) << alias;
    }
  }
}

TEST(DeviceInfo, TheAliasesCanBeListed) {
  EXPECT_EQ(known_device_aliases().substr(0, 10), "a40, a6000");
}

TEST(DeviceInfo, ArchitecturesWithSpecificInstructionsCarryAnA) {
  EXPECT_EQ(arch_name(80), "sm_80");
  EXPECT_EQ(arch_name(86), "sm_86");
  EXPECT_EQ(arch_name(90), "sm_90a");
}

}  // namespace
}  // namespace w4tune

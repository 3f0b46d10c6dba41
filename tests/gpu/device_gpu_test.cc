// The wrappers of the driver on a real GPU; skipped with the reason where there is none.
#include "gpu/device.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <numeric>
#include <stdexcept>
#include <thread>
#include <vector>

#include "gpu/buffer.h"
#include "gpu/clock_probe.h"
#include "gpu/context.h"
#include "gpu/event.h"
#include "gpu/graph.h"
#include "gpu/module.h"
#include "gpu/stream.h"
#include "w4tune/error.h"

namespace w4tune {
namespace {

// y[thread] += 1, then `spins` additions of zero, to last a while.
const char* const kAddOnePtx = R"(.version 7.0
.target sm_80
.address_size 64
.visible .entry w4_add_one(.param .u64 y, .param .u32 spins)
{
  .reg .pred %p;
  .reg .b32 %lane, %value, %left;
  .reg .b64 %address, %offset;
  ld.param.u64 %address, [y];
  ld.param.u32 %left, [spins];
  cvta.to.global.u64 %address, %address;
  mov.u32 %lane, %tid.x;
  mul.wide.u32 %offset, %lane, 4;
  add.u64 %address, %address, %offset;
  ld.global.u32 %value, [%address];
  add.u32 %value, %value, 1;
  st.global.u32 [%address], %value;
spin:
  setp.eq.u32 %p, %left, 0;
  @%p bra done;
  ld.volatile.global.u32 %value, [%address];
  sub.u32 %left, %left, 1;
  bra spin;
done:
  ret;
}
)";

constexpr std::uint32_t kThreads = 64;

class DeviceTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (device_count() == 0) GTEST_SKIP() << no_device_reason();
    context_ = std::make_unique<Context>(0);
  }

  void add_one(const Kernel& kernel, const Buffer& y, std::uint32_t spins, const Stream& stream) {
    auto* address = y.as<std::uint32_t>();
    void* params[] = {&address, &spins};
    launch(kernel.function(), 1, kThreads, 0, stream.handle(), params);
  }

  static std::vector<std::uint32_t> read(const Buffer& buffer) {
    std::vector<std::uint32_t> values(buffer.size_bytes() / sizeof(std::uint32_t));
    buffer.download(values.data(), buffer.size_bytes());
    return values;
  }

  std::unique_ptr<Context> context_;
};

TEST_F(DeviceTest, QueryIsPlausible) {
  const DeviceInfo info = query_device(0);
  EXPECT_FALSE(info.name.empty());
  EXPECT_GE(info.sm, 70);
  EXPECT_GT(info.sm_count, 0);
  EXPECT_GT(info.l2_bytes, 0U);
  EXPECT_GE(info.smem_sm_bytes, info.smem_block_bytes);
  EXPECT_GE(info.threads_per_sm, 1024);
  EXPECT_GT(info.clock_mhz, 100);
  EXPECT_GT(info.dram_gbps, 10.0);
  EXPECT_GE(std::stoi(driver_version()), 12);
  EXPECT_EQ(no_device_reason(), "");
}

TEST_F(DeviceTest, BufferMovesBytesBothWays) {
  std::vector<std::uint32_t> values(1000);
  std::iota(values.begin(), values.end(), 7U);
  Buffer buffer(4000);
  buffer.fill(0xAB);
  EXPECT_EQ(read(buffer)[999], 0xABABABABU);
  buffer.upload(values.data(), 400, 3600);
  const auto result = read(buffer);
  EXPECT_EQ(result[899], 0xABABABABU);
  EXPECT_EQ(result[900], 7U);
  Buffer moved = std::move(buffer);
  EXPECT_EQ(moved.size_bytes(), 4000U);
  Buffer(0).fill(1);
}

TEST_F(DeviceTest, KernelRunsAndReportsResources) {
  const Kernel kernel(kAddOnePtx, "w4_add_one");
  EXPECT_GT(kernel.registers(), 0);
  EXPECT_EQ(kernel.local_bytes(), 0);
  Buffer y(kThreads * 4);
  y.fill(0);
  const Stream stream;
  add_one(kernel, y, 0, stream);
  stream.synchronize();
  EXPECT_EQ(read(y), std::vector<std::uint32_t>(kThreads, 1U));
}

TEST_F(DeviceTest, SharedMemoryBeyondTheGpuIsRefused) {
  Kernel kernel(kAddOnePtx, "w4_add_one");
  const DeviceInfo info = query_device(0);
  kernel.allow_dynamic_smem(info.smem_block_bytes);
  EXPECT_THROW(kernel.allow_dynamic_smem(info.smem_block_bytes + 1024), Error);
}

TEST_F(DeviceTest, BadImageAndMissingKernelThrowOneLine) {
  try {
    const Module module(".version 7.0\n.target sm_80\nnonsense\n");
    FAIL() << "nonsense was loaded";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kDevice);
    EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos) << error.what();
  }
  EXPECT_THROW(Kernel(kAddOnePtx, "no_such_kernel"), Error);
}

TEST_F(DeviceTest, EventsTimeAGraphFromWithin) {
  const Kernel kernel(kAddOnePtx, "w4_add_one");
  Buffer y(kThreads * 4);
  y.fill(0);
  const Stream stream;
  Event start;
  Event end;
  const Graph graph = Graph::capture(stream.handle(), [&] {
    start.record_in_graph(stream.handle());
    for (int i = 0; i < 10; ++i) add_one(kernel, y, 100, stream);
    end.record_in_graph(stream.handle());
  });
  EXPECT_EQ(read(y), std::vector<std::uint32_t>(kThreads, 0U));
  for (int replay = 0; replay < 3; ++replay) graph.launch(stream.handle());
  stream.synchronize();
  EXPECT_EQ(read(y), std::vector<std::uint32_t>(kThreads, 30U));
  EXPECT_GT(elapsed_us(start, end), 1.0);
  EXPECT_LT(elapsed_us(start, end), 1e6);
}

TEST_F(DeviceTest, CaptureThatThrowsLeavesTheStreamUsable) {
  const Kernel kernel(kAddOnePtx, "w4_add_one");
  Buffer y(kThreads * 4);
  y.fill(0);
  const Stream stream;
  EXPECT_THROW(Graph::capture(stream.handle(),
                              [&] {
                                add_one(kernel, y, 0, stream);
                                throw std::runtime_error("stop");
                              }),
               std::runtime_error);
  Event start;
  Event end;
  start.record(stream.handle());
  add_one(kernel, y, 0, stream);
  end.record(stream.handle());
  end.synchronize();
  EXPECT_GT(elapsed_us(start, end), 0.0);
  EXPECT_EQ(read(y), std::vector<std::uint32_t>(kThreads, 1U));
}

TEST_F(DeviceTest, ClockProbeReadsTheClockOfAGraph) {
  const ClockProbe probe(2);
  EXPECT_EQ(probe.clock_mhz(0, 1), 0.0);
  const Kernel kernel(kAddOnePtx, "w4_add_one");
  Buffer y(kThreads * 4);
  y.fill(0);
  const Stream stream;
  const Graph graph = Graph::capture(stream.handle(), [&] {
    probe.record(stream.handle(), 0);
    add_one(kernel, y, 10000, stream);
    probe.record(stream.handle(), 1);
  });
  int readings = 0;
  for (int replay = 0; replay < 5; ++replay) {
    graph.launch(stream.handle());
    stream.synchronize();
    const double clock_mhz = probe.clock_mhz(0, 1);
    if (clock_mhz == 0.0) continue;  // the two probes ran on different SMs
    ++readings;
    EXPECT_GT(clock_mhz, 100.0);
    EXPECT_LT(clock_mhz, 1.2 * query_device(0).clock_mhz);
  }
  EXPECT_GT(readings, 0);
}

TEST_F(DeviceTest, AnotherThreadUsesTheContext) {
  std::thread([this] {
    context_->make_current();
    Buffer buffer(64);
    buffer.fill(3);
    EXPECT_EQ(read(buffer)[0], 0x03030303U);
  }).join();
}

}  // namespace
}  // namespace w4tune

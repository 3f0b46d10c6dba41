// The Dispatcher on a GPU: packing, threads, streams, captures, strides, M beyond what was tuned.

#include <gtest/gtest.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "core/problem.h"
#include "gpu/buffer.h"
#include "gpu/context.h"
#include "gpu/device.h"
#include "gpu/driver.h"
#include "gpu/graph.h"
#include "gpu/stream.h"
#include "runtime/workspace.h"
#include "tests/cache/samples.h"
#include "tests/runtime/reference.h"
#include "tests/runtime/small_cache.h"
#include "w4tune/dispatcher.h"

namespace w4tune {
namespace {

constexpr Problem kProblem{
    .op = Op::kGemm, .n = 1024, .k = 512, .group_size = 128, .dtype = Dtype::kF16};
constexpr int kTuned = 64;  // the largest tuned M
constexpr int kMost = 300;
constexpr int kSplit = 4;

// One file for all tests, whose winners all split K; large enough for the tuner's rules to leave
// some.
class DispatchGpuTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    if (device_count() == 0) return;
    cache_path = testing::TempDir() + "w4tune_dispatch_gpu_test.db";
    for (const char* suffix : {"", "-wal", "-shm"}) std::filesystem::remove(cache_path + suffix);
    samples::tune_small_cache(cache_path, {kProblem}, {16, kTuned}, kSplit);
    host_operands = random_operands(kProblem, kMost, 3);
    expected_result = samples::reference(kProblem, host_operands, kMost);
  }
  static void TearDownTestSuite() {
    for (const char* suffix : {"", "-wal", "-shm"}) std::filesystem::remove(cache_path + suffix);
  }

  void SetUp() override {
    if (device_count() == 0) GTEST_SKIP() << no_device_reason();
    context_ = std::make_unique<Context>(0);
    dispatcher_ = std::make_unique<Dispatcher>(Dispatcher::open(cache_path));
    weight_ = Buffer(packed_weight_bytes(kProblem));
    scales_ = Buffer(packed_scale_bytes(kProblem));
    std::vector<std::uint32_t> weight(weight_.size_bytes() / 4);
    std::vector<std::uint16_t> scales(scales_.size_bytes() / 2);
    pack_weights(kProblem,
                 {.nibbles = host_operands.nibbles.data(),
                  .scales = host_operands.scales.data(),
                  .encoding = NibbleEncoding::kOffset8},
                 weight.data(), scales.data());
    weight_.upload(weight.data(), weight_.size_bytes());
    scales_.upload(scales.data(), scales_.size_bytes());
    x_ = Buffer(host_operands.x.size() * 2);
    x_.upload(host_operands.x.data(), x_.size_bytes());
  }

  [[nodiscard]] LaunchOperands operands(const Buffer& y, int m) const {
    return {.x = x_.as<void>(),
            .w = weight_.as<void>(),
            .scales = scales_.as<void>(),
            .y = y.as<void>(),
            .m = m,
            .ldx = 0,
            .ldy = 0};
  }

  [[nodiscard]] Buffer poisoned_y(int m) const {
    Buffer y(static_cast<std::size_t>(m) * 2 * kProblem.n);
    y.fill(0xff);
    return y;
  }

  [[nodiscard]] double ratio(const Buffer& y, int m) const {
    std::vector<std::uint16_t> host(y.size_bytes() / 2);
    y.download(host.data(), y.size_bytes());
    return samples::worst_ratio(kProblem, expected_result, host, m, kProblem.n);
  }

  // Launches and checks one M on a stream a few times; for any thread.
  void launch_and_check(CUstream stream, int m) const {
    context_->make_current();
    for (int round = 0; round < 20; ++round) {
      const Buffer y = poisoned_y(m);
      dispatcher_->launch(dispatcher_->select(kProblem, m), operands(y, m), stream);
      check(driver().stream_synchronize(stream), "cuStreamSynchronize");
      EXPECT_LE(ratio(y, m), 1.0) << "m = " << m;
    }
  }

  static inline std::string cache_path;
  static inline HostOperands host_operands;
  static inline samples::Reference expected_result;
  std::unique_ptr<Context> context_;
  std::unique_ptr<Dispatcher> dispatcher_;
  Buffer weight_;
  Buffer scales_;
  Buffer x_;
};

TEST_F(DispatchGpuTest, PackingOnTheGpuIsPackingOnTheCpu) {
  for (const Problem& problem :
       {kProblem,
        Problem{.op = Op::kGeglu, .n = 48, .k = 192, .group_size = 64, .dtype = Dtype::kBF16},
        Problem{.op = Op::kGemm, .n = 32, .k = 320, .group_size = 320, .dtype = Dtype::kF16}}) {
    for (const auto encoding : {NibbleEncoding::kOffset8, NibbleEncoding::kSigned}) {
      const HostOperands host = random_operands(problem, 1, 5);
      std::vector<std::uint32_t> weight(packed_weight_bytes(problem) / 4);
      std::vector<std::uint16_t> scales(packed_scale_bytes(problem) / 2);
      pack_weights(
          problem,
          {.nibbles = host.nibbles.data(), .scales = host.scales.data(), .encoding = encoding},
          weight.data(), scales.data());
      Buffer nibbles_in(host.nibbles.size());
      Buffer scales_in(host.scales.size() * 2);
      nibbles_in.upload(host.nibbles.data(), nibbles_in.size_bytes());
      scales_in.upload(host.scales.data(), scales_in.size_bytes());
      const Buffer weight_out(weight.size() * 4);
      const Buffer scales_out(scales.size() * 2);
      const Stream stream;
      dispatcher_->pack_weights(
          problem,
          {.nibbles = nibbles_in.as<void>(), .scales = scales_in.as<void>(), .encoding = encoding},
          weight_out.as<void>(), scales_out.as<void>(), stream.handle());
      stream.synchronize();
      std::vector<std::uint32_t> weight_packed(weight.size());
      std::vector<std::uint16_t> scales_packed(scales.size());
      weight_out.download(weight_packed.data(), weight_out.size_bytes());
      scales_out.download(scales_packed.data(), scales_out.size_bytes());
      EXPECT_EQ(weight_packed, weight) << to_string(problem);
      EXPECT_EQ(scales_packed, scales) << to_string(problem);
    }
  }
}

TEST_F(DispatchGpuTest, MatchesWhatWasMeasuredHere) {
  EXPECT_EQ(dispatcher_->device_name(), query_device(0).name);
  EXPECT_EQ(dispatcher_->select(kProblem, 16).match, Match::kExact);
  EXPECT_EQ(dispatcher_->select(kProblem, 17).match, Match::kInterpolatedM);
  EXPECT_EQ(dispatcher_->select(kProblem, kMost).match, Match::kInterpolatedM);
}

TEST_F(DispatchGpuTest, SeveralThreadsOnTheirStreams) {
  std::vector<Stream> streams(4);
  std::vector<std::thread> threads;
  const std::vector<int> tokens = {1, 15, 33, kTuned};
  for (std::size_t i = 0; i < streams.size(); ++i) {
    threads.emplace_back([&, i] { launch_and_check(streams[i].handle(), tokens[i]); });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST_F(DispatchGpuTest, SeveralThreadsOnTheirDefaultStreams) {
  std::vector<std::thread> threads;
  for (const int m : {1, 16, 31, kTuned}) {
    threads.emplace_back([this, m] { launch_and_check(CU_STREAM_PER_THREAD, m); });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST_F(DispatchGpuTest, TheFirstLaunchOfAStreamMayBeCaptured) {
  const Stream stream;
  constexpr int kTokens = 23;
  Buffer y = poisoned_y(kTokens);
  const Graph graph = Graph::capture(stream.handle(), [&] {
    dispatcher_->launch(dispatcher_->select(kProblem, kTokens), operands(y, kTokens),
                        stream.handle());
  });
  for (int round = 0; round < 3; ++round) {
    y.fill(0xff);
    graph.launch(stream.handle());
    stream.synchronize();
    EXPECT_LE(ratio(y, kTokens), 1.0);
  }
}

TEST_F(DispatchGpuTest, BeyondTheLargestTunedMTheSplitIsLowered) {
  const Stream stream;
  for (const int m : {kTuned + 1, 130, kMost}) {
    Buffer first = poisoned_y(m);
    Buffer second = poisoned_y(m);
    for (Buffer* y : {&first, &second}) {
      dispatcher_->launch(dispatcher_->select(kProblem, m), operands(*y, m), stream.handle());
    }
    stream.synchronize();
    EXPECT_LE(ratio(first, m), 1.0) << m;
    std::vector<char> a(first.size_bytes());
    std::vector<char> b(second.size_bytes());
    first.download(a.data(), a.size());
    second.download(b.data(), b.size());
    EXPECT_EQ(a, b) << "the same launch twice, m = " << m;
  }
}

TEST_F(DispatchGpuTest, RowsMayBeApart) {
  constexpr int kTokens = 19;
  constexpr std::size_t kLdx = 512 + 8;
  constexpr std::size_t kLdy = 1024 + 24;
  std::vector<std::uint16_t> x(kTokens * kLdx, 0x7e00);  // NaN between the rows
  for (std::size_t token = 0; token < kTokens; ++token) {
    for (std::size_t d = 0; d < 512; ++d) x[token * kLdx + d] = host_operands.x[token * 512 + d];
  }
  Buffer x_apart(x.size() * 2);
  x_apart.upload(x.data(), x_apart.size_bytes());
  Buffer y(kTokens * kLdy * 2);
  y.fill(0xff);
  LaunchOperands apart = operands(y, kTokens);
  apart.x = x_apart.as<void>();
  apart.ldx = kLdx;
  apart.ldy = kLdy;
  const Stream stream;
  dispatcher_->launch(dispatcher_->select(kProblem, kTokens), apart, stream.handle());
  stream.synchronize();
  std::vector<std::uint16_t> result(kTokens * kLdy);
  y.download(result.data(), y.size_bytes());
  EXPECT_LE(samples::worst_ratio(kProblem, expected_result, result, kTokens, kLdy), 1.0);
  for (std::size_t i = 0; i < result.size(); ++i) {
    if (i % kLdy >= 1024) {
      ASSERT_EQ(result[i], 0xffff) << "between rows, element " << i;
    }
  }
}

TEST_F(DispatchGpuTest, MoreStreamsThanTheWorkspaceHoldsIsAnError) {
  std::vector<Stream> streams(Workspace::kMaxStreams + 1);
  const Buffer y = poisoned_y(1);
  const auto launch_on = [&](const Stream& stream) {
    dispatcher_->launch(dispatcher_->select(kProblem, 1), operands(y, 1), stream.handle());
    stream.synchronize();
  };
  for (std::size_t i = 0; i < Workspace::kMaxStreams; ++i) launch_on(streams[i]);
  samples::expect_error(ErrorCode::kInvalidArgument, "64 streams",
                        [&] { launch_on(streams.back()); });
  launch_on(streams.front());
}

TEST_F(DispatchGpuTest, ServesAThreadWithoutAContext) {
  const Stream stream;
  const Buffer y = poisoned_y(5);
  std::thread([&] {
    dispatcher_->launch(dispatcher_->select(kProblem, 5), operands(y, 5), stream.handle());
  }).join();
  stream.synchronize();
  EXPECT_LE(ratio(y, 5), 1.0);
}

TEST_F(DispatchGpuTest, ADeviceThatIsNotThereIsNamed) {
  samples::expect_error(ErrorCode::kNoDevice, "no GPU 99",
                        [] { Dispatcher::open(cache_path, {.device = 99, .device_name = ""}); });
}

}  // namespace
}  // namespace w4tune

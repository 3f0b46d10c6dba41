// dequant_cublas on a GPU: slices against the reference, captured, from several threads, forbidden.
// Needs a GPU and cuBLASLt; skipped with the reason where one of them is missing.

#include <gtest/gtest.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "cache/store.h"
#include "core/problem.h"
#include "gpu/buffer.h"
#include "gpu/context.h"
#include "gpu/cublaslt.h"
#include "gpu/device.h"
#include "gpu/driver.h"
#include "gpu/graph.h"
#include "gpu/stream.h"
#include "tests/cache/samples.h"
#include "tests/runtime/reference.h"
#include "tests/runtime/small_cache.h"
#include "tests/tuner/program.h"
#include "w4tune/dispatcher.h"

namespace w4tune {
namespace {

constexpr int kFew = 16;
constexpr int kTuned = 128;  // the largest tuned M, whose winner has the composite
constexpr int kMost = 300;   // three blocks of tokens, the last not full
constexpr int kSlice = 336;  // rows: several slices, the last not full

const std::vector<Problem>& problems() {
  static const std::vector<Problem> all = {
      {.op = Op::kGemm, .n = 1040, .k = 512, .group_size = 128, .dtype = Dtype::kF16},
      {.op = Op::kGeglu, .n = 528, .k = 256, .group_size = 32, .dtype = Dtype::kBF16},
      {.op = Op::kGeglu, .n = 528, .k = 512, .group_size = 64, .dtype = Dtype::kF16},
      {.op = Op::kGemm, .n = 1024, .k = 1024, .group_size = 1024, .dtype = Dtype::kBF16}};
  return all;
}

// One weight on the GPU with tokens, and what their product must be.
struct Layer {
  explicit Layer(const Problem& wanted)
      : problem(wanted),
        host(random_operands(wanted, kMost, 3)),
        expected(samples::reference(wanted, host, kMost)),
        weight(packed_weight_bytes(wanted)),
        scales(packed_scale_bytes(wanted)),
        x(host.x.size() * 2) {
    std::vector<std::uint32_t> packed(weight.size_bytes() / 4);
    std::vector<std::uint16_t> packed_scales(scales.size_bytes() / 2);
    pack_weights(problem,
                 {.nibbles = host.nibbles.data(),
                  .scales = host.scales.data(),
                  .encoding = NibbleEncoding::kOffset8},
                 packed.data(), packed_scales.data());
    weight.upload(packed.data(), weight.size_bytes());
    scales.upload(packed_scales.data(), scales.size_bytes());
    x.upload(host.x.data(), x.size_bytes());
  }

  Problem problem;
  HostOperands host;
  samples::Reference expected;
  Buffer weight;
  Buffer scales;
  Buffer x;
};

class CompositeGpuTest : public testing::Test {
 protected:
  static bool can_run() { return device_count() > 0 && CublasLt::available(); }

  // Tunes a little, and puts a composite beside the winners at kTuned: whether it is faster is not
  // this test's question.
  static void SetUpTestSuite() {
    if (!can_run()) return;
    cache_path = testing::TempDir() + "w4tune_composite_gpu_test.db";
    remove_cache();
    samples::tune_small_cache(cache_path, problems(), {kFew, kTuned});
    Store store = Store::open(cache_path, Store::Mode::kReadWrite);
    TuneOptions options;
    options.device = query_device(0);
    const std::int64_t run = store.begin_run(describe_run(options, "forced"));
    for (Winner& winner : store.winners(options.device)) {
      if (winner.m != kTuned) continue;
      winner.composite =
          Composite{.slice_rows = kSlice,
                    .scratch_bytes = slice_scratch(winner.problem, kSlice, kTuned).total(),
                    .time_us_median = 1.0,
                    .time_us = {1.0}};
      store.put_winners(run, winner.problem, {winner});
    }
  }
  static void TearDownTestSuite() { remove_cache(); }
  static void remove_cache() {
    for (const char* suffix : {"", "-wal", "-shm"}) std::filesystem::remove(cache_path + suffix);
  }

  void SetUp() override {
    if (device_count() == 0) GTEST_SKIP() << no_device_reason();
    if (!CublasLt::available()) GTEST_SKIP() << "cuBLASLt is not installed";
    context_ = std::make_unique<Context>(0);
    dispatcher_ = std::make_unique<Dispatcher>(Dispatcher::open(cache_path));
  }

  [[nodiscard]] Selection select(const Layer& layer, int m) const {
    const Selection selection = dispatcher_->select(layer.problem, m);
    EXPECT_GT(selection.scratch_bytes(), 0U) << to_string(Workload{layer.problem, m});
    return selection;
  }

  // y has `pad` elements behind each row, which must keep their poison; x rows lie dense.
  [[nodiscard]] static LaunchOperands operands(const Layer& layer, const Buffer& y, int m,
                                               int pad = 0) {
    return {.x = layer.x.as<void>(),
            .w = layer.weight.as<void>(),
            .scales = layer.scales.as<void>(),
            .y = y.as<void>(),
            .m = m,
            .ldx = 0,
            .ldy = layer.problem.n + pad};
  }

  [[nodiscard]] static Buffer poisoned_y(const Layer& layer, int m, int pad = 0) {
    Buffer y(static_cast<std::size_t>(m) * static_cast<std::size_t>(layer.problem.n + pad) * 2);
    y.fill(0xff);
    return y;
  }

  static void expect_right(const Layer& layer, const Buffer& y, int m, int pad = 0) {
    std::vector<std::uint16_t> host(y.size_bytes() / 2);
    y.download(host.data(), y.size_bytes());
    const auto ldy = static_cast<std::size_t>(layer.problem.n + pad);
    EXPECT_LE(samples::worst_ratio(layer.problem, layer.expected, host, m, ldy), 1.0)
        << to_string(Workload{layer.problem, m});
    for (std::size_t row = 0; row < static_cast<std::size_t>(m); ++row) {
      for (std::size_t i = static_cast<std::size_t>(layer.problem.n); i < ldy; ++i) {
        ASSERT_EQ(host[row * ldy + i], 0xffff) << "behind row " << row;
      }
    }
  }

  static inline std::string cache_path;
  std::unique_ptr<Context> context_;
  std::unique_ptr<Dispatcher> dispatcher_;
};

TEST_F(CompositeGpuTest, EveryMIsRightInSlicesAndBlocksOfTokens) {
  const Stream stream;
  for (const Problem& problem : problems()) {
    const Layer layer(problem);
    for (const int m : {64, 77, 101, kTuned - 1, kTuned, kTuned + 1, kMost}) {
      for (const int pad : {0, 24}) {
        const Buffer y = poisoned_y(layer, m, pad);
        dispatcher_->launch(select(layer, m), operands(layer, y, m, pad), stream.handle());
        stream.synchronize();
        expect_right(layer, y, m, pad);
      }
    }
  }
}

TEST_F(CompositeGpuTest, FewTokensAreServedByTheKernel) {
  for (const int m : {1, kFew, kFew + 1, 63}) {
    EXPECT_EQ(dispatcher_->select(problems()[0], m).scratch_bytes(), 0U) << m;
  }
}

TEST_F(CompositeGpuTest, TheFirstLaunchMayBeCaptured) {
  for (const Problem& problem : problems()) {
    const Layer layer(problem);
    const Stream stream;
    Buffer y = poisoned_y(layer, kTuned);
    const Graph graph = Graph::capture(stream.handle(), [&] {
      dispatcher_->launch(select(layer, kTuned), operands(layer, y, kTuned), stream.handle());
    });
    for (int round = 0; round < 3; ++round) {
      y.fill(0xff);
      graph.launch(stream.handle());
      stream.synchronize();
      expect_right(layer, y, kTuned);
    }
  }
}

TEST_F(CompositeGpuTest, SeveralThreadsOnTheirStreams) {
  std::vector<std::unique_ptr<Layer>> layers;
  for (const Problem& problem : problems()) layers.push_back(std::make_unique<Layer>(problem));
  std::vector<Stream> streams(layers.size());
  std::vector<std::thread> threads;
  for (std::size_t i = 0; i < layers.size(); ++i) {
    threads.emplace_back([&, i] {
      context_->make_current();
      const Layer& layer = *layers[i];
      for (int round = 0; round < 20; ++round) {
        const int m = round % 2 == 0 ? kTuned : 77;
        const Buffer y = poisoned_y(layer, m);
        dispatcher_->launch(select(layer, m), operands(layer, y, m), streams[i].handle());
        streams[i].synchronize();
        expect_right(layer, y, m);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

// A kernel that may begin early comes behind a composite, reads what that wrote, and is followed by
// another composite: the order of the stream holds.
TEST_F(CompositeGpuTest, DependentLaunchesKeepTheirOrderAroundIt) {
  const Layer layer(problems()[3]);
  const Stream stream;
  std::vector<Buffer> outputs;
  for (int i = 0; i < 6; ++i) outputs.push_back(poisoned_y(layer, kTuned));
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    const int m = i % 2 == 0 ? kTuned : kFew;
    LaunchOperands launch = operands(layer, outputs[i], m);
    launch.dependent_launch = true;
    dispatcher_->launch(dispatcher_->select(layer.problem, m), launch, stream.handle());
  }
  stream.synchronize();
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    expect_right(layer, outputs[i], i % 2 == 0 ? kTuned : kFew);
  }
}

TEST_F(CompositeGpuTest, AForbiddenScratchLeavesTheKernel) {
  const Layer layer(problems()[0]);
  const std::size_t needed = select(layer, kTuned).scratch_bytes();
  for (const std::size_t limit : {std::size_t{0}, needed - 1}) {
    const Dispatcher without = Dispatcher::open(cache_path, {.max_scratch_bytes = limit});
    const Selection selection = without.select(layer.problem, kTuned);
    EXPECT_EQ(selection.scratch_bytes(), 0U);
    const Stream stream;
    const Buffer y = poisoned_y(layer, kTuned);
    without.launch(selection, operands(layer, y, kTuned), stream.handle());
    stream.synchronize();
    expect_right(layer, y, kTuned);
  }
}

// The tuner's own way: it measures the composite and says of each row why it has none, or stores
// it.
TEST_F(CompositeGpuTest, TheTunerMeasuresItAndObeysTheLimit) {
  const Problem problem{
      .op = Op::kGeglu, .n = 2048, .k = 1024, .group_size = 128, .dtype = Dtype::kF16};
  for (const std::size_t limit : {std::size_t{0}, std::size_t{64} << 20}) {
    const samples::Folder folder;
    Store store = Store::open(folder.file("tune.db"), Store::Mode::kReadWrite);
    TuneOptions options;
    options.plan.name = "composite";
    options.plan.workloads = {{problem, 16}, {problem, 1024}};
    options.device = query_device(0);
    options.measuring_program = program_under_test();
    options.evaluations = 4;
    options.max_workspace_bytes = limit;
    options.threads = static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
    samples::SilentObserver observer;
    const TuneResult result = tune_measured(options, store, observer);
    ASSERT_EQ(result.rows.size(), 2U);
    ASSERT_TRUE(result.rows[1].winner);
    EXPECT_EQ(result.rows[0].composite_left_out, "fewer than 64 tokens");
    const std::optional<Composite>& composite = result.rows[1].winner->composite;
    const std::string& left_out = result.rows[1].composite_left_out;
    if (limit == 0) {
      EXPECT_NE(left_out.find("--max-workspace"), std::string::npos) << left_out;
      EXPECT_FALSE(composite);
    } else if (composite) {
      EXPECT_LE(composite->scratch_bytes, limit);
      EXPECT_LT(composite->time_us_median, result.rows[1].winner->time_us_median);
      EXPECT_LE(composite->error_worst_ratio, 1.0);
    } else {
      EXPECT_NE(left_out.find("us"), std::string::npos) << left_out;
    }
  }
}

}  // namespace
}  // namespace w4tune

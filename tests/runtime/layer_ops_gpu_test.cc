// What layers need beside their product, on a GPU: dequantizing, activating, rotating; and default
// kernels for sizes that nobody has tuned.

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "core/half.h"
#include "core/problem.h"
#include "gpu/buffer.h"
#include "gpu/context.h"
#include "gpu/device.h"
#include "gpu/stream.h"
#include "tests/cache/samples.h"
#include "tests/runtime/reference.h"
#include "tuner/defaults.h"
#include "w4tune/dispatcher.h"

namespace w4tune {
namespace {

// One file of default kernels for all tests, without a tuned file.
class LayerOpsGpuTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    if (device_count() == 0) return;
    defaults_path = testing::TempDir() + "w4tune_layer_ops_defaults.db";
    const int threads = static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
    write_defaults(defaults_path, threads, [](const std::string&) {});
  }

  void SetUp() override {
    if (device_count() == 0) GTEST_SKIP() << no_device_reason();
    context_ = std::make_unique<Context>(0);
    OpenOptions options;
    options.defaults_path = defaults_path;
    dispatcher_ = std::make_unique<Dispatcher>(Dispatcher::open("", options));
  }

  template <class T>
  static Buffer on_gpu(const std::vector<T>& host) {
    Buffer buffer(host.size() * sizeof(T));
    buffer.upload(host.data(), buffer.size_bytes());
    return buffer;
  }

  static std::vector<std::uint16_t> random_values(Dtype dtype, std::size_t count, float scale) {
    std::mt19937 random(static_cast<unsigned>(count));
    std::normal_distribution<float> normal(0.0F, scale);
    std::vector<std::uint16_t> values(count);
    for (auto& value : values) value = from_float(dtype, normal(random));
    return values;
  }

  // Runs `enqueue` with a poisoned output of `count` elements and a fence behind it.
  template <class Enqueue>
  static std::vector<std::uint16_t> run(std::size_t count, const Enqueue& enqueue) {
    constexpr std::size_t kFence = 64;
    Buffer y((count + kFence) * 2);
    y.fill(0xff);
    const Stream stream;
    enqueue(y.as<void>(), stream.handle());
    stream.synchronize();
    std::vector<std::uint16_t> host(count + kFence);
    y.download(host.data(), y.size_bytes());
    for (std::size_t i = count; i < host.size(); ++i) EXPECT_EQ(host[i], 0xffff) << "fence " << i;
    host.resize(count);
    return host;
  }

  static inline std::string defaults_path;
  std::unique_ptr<Context> context_;
  std::unique_ptr<Dispatcher> dispatcher_;
};

TEST_F(LayerOpsGpuTest, DequantizingOnTheGpuIsDequantizingOnTheCpu) {
  for (const Problem& problem :
       {Problem{.op = Op::kGemm, .n = 1040, .k = 512, .group_size = 128, .dtype = Dtype::kF16},
        Problem{.op = Op::kGeglu, .n = 48, .k = 192, .group_size = 32, .dtype = Dtype::kBF16},
        Problem{.op = Op::kGeglu, .n = 32, .k = 320, .group_size = 320, .dtype = Dtype::kF16},
        Problem{.op = Op::kGemm, .n = 16, .k = 64, .group_size = 64, .dtype = Dtype::kBF16}}) {
    const HostOperands host = random_operands(problem, 1, 5);
    std::vector<std::uint32_t> weight(packed_weight_bytes(problem) / 4);
    std::vector<std::uint16_t> scales(packed_scale_bytes(problem) / 2);
    pack_weights(problem, {.nibbles = host.nibbles.data(), .scales = host.scales.data()},
                 weight.data(), scales.data());
    std::vector<std::uint16_t> expected(static_cast<std::size_t>(weight_rows(problem)) *
                                        static_cast<std::size_t>(problem.k));
    dequantize_weights(problem, weight.data(), scales.data(), expected.data());
    const Buffer weight_in = on_gpu(weight);
    const Buffer scales_in = on_gpu(scales);
    EXPECT_EQ(run(expected.size(),
                  [&](void* y, CudaStream stream) {
                    dispatcher_->dequantize(problem, weight_in.as<void>(), scales_in.as<void>(), y,
                                            stream);
                  }),
              expected)
        << to_string(problem);
  }
}

TEST_F(LayerOpsGpuTest, Activates) {
  for (const Dtype dtype : {Dtype::kF16, Dtype::kBF16}) {
    constexpr int kM = 37;
    constexpr int kN = 264;
    const std::vector<std::uint16_t> h = random_values(dtype, std::size_t{kM} * 2 * kN, 3.0F);
    const Buffer h_in = on_gpu(h);
    const auto y = run(std::size_t{kM} * kN, [&](void* out, CudaStream stream) {
      dispatcher_->activate(dtype, h_in.as<void>(), out, kM, kN, stream);
    });
    for (std::size_t i = 0; i < y.size(); ++i) {
      const std::size_t at = i / kN * 2 * kN + i % kN;
      const samples::Bounded expected =
          samples::geglu({to_float(dtype, h[at]), 0.0}, {to_float(dtype, h[at + kN]), 0.0});
      const double bound =
          unit_roundoff(dtype) * std::abs(expected.value) + 2 * expected.error + 0x1p-24;
      ASSERT_NEAR(to_float(dtype, y[i]), expected.value, bound) << i;
    }
  }
}

TEST_F(LayerOpsGpuTest, RotatesBlocksAfterPermuting) {
  struct Case {
    int m, width, block, pad;
    bool permute;
  };
  for (const Dtype dtype : {Dtype::kF16, Dtype::kBF16}) {
    for (const Case c :
         {Case{1, 1024, 64, 0, true}, Case{10, 4096, 64, 8, false}, Case{50, 208, 16, 0, true},
          Case{33, 320, 128, 0, true}, Case{9, 512, 256, 3, false}, Case{5, 66, 24, 0, true}}) {
      const auto m = static_cast<std::size_t>(c.m);
      const auto width = static_cast<std::size_t>(c.width);
      const auto size = static_cast<std::size_t>(c.block);
      const std::size_t ldx = width + static_cast<std::size_t>(c.pad);
      const std::size_t num_blocks = (width + size - 1) / size;
      const auto x = random_values(dtype, m * ldx, 1.0F);
      const auto blocks = random_values(Dtype::kF16, num_blocks * size * size, 0.2F);
      std::vector<int> permutation(width);
      for (std::size_t i = 0; i < width; ++i) permutation[i] = static_cast<int>(i);
      std::mt19937 random(3);
      std::shuffle(permutation.begin(), permutation.end(), random);
      const Buffer x_in = on_gpu(x);
      const Buffer blocks_in = on_gpu(blocks);
      const Buffer permutation_in = on_gpu(permutation);
      const auto y = run(m * width, [&](void* out, CudaStream stream) {
        dispatcher_->rotate({.x = x_in.as<void>(),
                             .permutation = c.permute ? permutation_in.as<int>() : nullptr,
                             .blocks = blocks_in.as<void>(),
                             .y = out,
                             .m = c.m,
                             .width = c.width,
                             .block = c.block,
                             .ldx = static_cast<std::int64_t>(ldx),
                             .dtype = dtype},
                            stream);
      });
      for (std::size_t token = 0; token < m; ++token) {
        for (std::size_t column = 0; column < width; ++column) {
          const std::size_t begin = column / size * size;
          double sum = 0.0;
          double sum_abs = 0.0;
          for (std::size_t i = 0; i < std::min(size, width - begin); ++i) {
            const std::size_t from =
                c.permute ? static_cast<std::size_t>(permutation[begin + i]) : begin + i;
            const double term = static_cast<double>(to_float(dtype, x[token * ldx + from])) *
                                f16_to_float(blocks[(begin + i) * size + column - begin]);
            sum += term;
            sum_abs += std::abs(term);
          }
          const double bound = unit_roundoff(dtype) * std::abs(sum) +
                               static_cast<double>(size) * 0x1p-24 * sum_abs + 0x1p-24;
          ASSERT_NEAR(to_float(dtype, y[token * width + column]), sum, bound)
              << "block " << c.block << " token " << token << " column " << column;
        }
      }
    }
  }
}

TEST_F(LayerOpsGpuTest, DefaultKernelsAreRightForSizesNobodyTuned) {
  for (const Op op : {Op::kGemm, Op::kGeglu}) {
    for (const Dtype dtype : {Dtype::kF16, Dtype::kBF16}) {
      for (const auto& [n, k, group] :
           {std::array{48, 192, 64}, {1024, 4096, 128}, {272, 320, 320}, {4112, 1024, 32}}) {
        const Problem problem{op, n, k, group, dtype};
        constexpr int kMost = 100;
        const HostOperands host = random_operands(problem, kMost, 7);
        const samples::Reference expected = samples::reference(problem, host, kMost);
        const Buffer nibbles = on_gpu(host.nibbles);
        const Buffer scales = on_gpu(host.scales);
        const Buffer packed(packed_weight_bytes(problem));
        const Buffer packed_scales(packed_scale_bytes(problem));
        const Buffer x = on_gpu(host.x);
        const Stream packing;
        dispatcher_->pack_weights(problem,
                                  {.nibbles = nibbles.as<void>(), .scales = scales.as<void>()},
                                  packed.as<void>(), packed_scales.as<void>(), packing.handle());
        packing.synchronize();
        for (const int m : {1, 7, 16, 17, 50, 64, 65, kMost}) {
          const Selection selection = dispatcher_->select(problem, m);
          ASSERT_EQ(selection.match, Match::kDefault);
          const auto y = run(static_cast<std::size_t>(m) * static_cast<std::size_t>(n),
                             [&](void* out, CudaStream stream) {
                               dispatcher_->launch(selection,
                                                   {.x = x.as<void>(),
                                                    .w = packed.as<void>(),
                                                    .scales = packed_scales.as<void>(),
                                                    .y = out,
                                                    .m = m},
                                                   stream);
                             });
          EXPECT_LE(samples::worst_ratio(problem, expected, y, m, static_cast<std::size_t>(n)), 1.0)
              << to_string(problem) << " m = " << m << ": " << selection.config();
        }
      }
    }
  }
}

TEST_F(LayerOpsGpuTest, NamesTheArgumentThatDoesNotFit) {
  Buffer memory(1 << 16);
  Rotation rotation{.x = memory.as<void>(),
                    .permutation = nullptr,
                    .blocks = memory.as<void>(),
                    .y = memory.as<void>(),
                    .m = 1,
                    .width = 64,
                    .block = 64};
  const auto expect_refused = [&](const char* text, const Rotation& bad) {
    samples::expect_error(ErrorCode::kInvalidArgument, text,
                          [&] { dispatcher_->rotate(bad, nullptr); });
  };
  Rotation bad = rotation;
  bad.block = 257;
  expect_refused("block = 257", bad);
  bad = rotation;
  bad.m = 0;
  expect_refused("m = 0", bad);
  bad = rotation;
  bad.ldx = 63;
  expect_refused("ldx = 63", bad);
  bad = rotation;
  bad.blocks = nullptr;
  expect_refused("blocks", bad);
  samples::expect_error(ErrorCode::kInvalidArgument, "n = 12", [&] {
    dispatcher_->activate(Dtype::kF16, memory.as<void>(), memory.as<void>(), 1, 12, nullptr);
  });
}

}  // namespace
}  // namespace w4tune

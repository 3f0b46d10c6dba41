// The C ABI: codes and words of errors, and that nothing but them crosses.

#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <thread>
#include <vector>

#include "tests/runtime/sample_cache.h"
#include "w4tune/packing.h"
#include "w4tune/w4tune.h"

namespace w4tune {
namespace {

constexpr w4tune_problem kProblem = {W4TUNE_GEMM, 16384, 2048, 128, W4TUNE_F16};

class CApiTest : public testing::Test {
 protected:
  CApiTest() {
    samples::add_winners(path_, samples::device());
    EXPECT_EQ(w4tune_open(path_.c_str(), -1, "a40", &dispatcher_), W4TUNE_OK);
  }
  CApiTest(const CApiTest&) = delete;
  CApiTest& operator=(const CApiTest&) = delete;
  ~CApiTest() override { w4tune_close(dispatcher_); }

  // Expects the code, and this text in the words.
  static void expect(w4tune_status expected, const char* text, w4tune_status status) {
    EXPECT_EQ(status, expected);
    const std::string message = w4tune_last_error();
    EXPECT_NE(message.find(text), std::string::npos) << message;
    EXPECT_EQ(message.find('\n'), std::string::npos) << message;
  }

  samples::Folder folder_;
  std::string path_ = folder_.file("w4tune.db");
  w4tune_dispatcher* dispatcher_ = nullptr;
};

TEST_F(CApiTest, SelectsAsTheDispatcherDoes) {
  EXPECT_STREQ(w4tune_device_name(dispatcher_), "NVIDIA A40");
  w4tune_selection selection = {};
  ASSERT_EQ(w4tune_select(dispatcher_, &kProblem, 16, &selection), W4TUNE_OK);
  EXPECT_EQ(selection.match, W4TUNE_EXACT);
  EXPECT_NE(selection.kernel, nullptr);
  EXPECT_STREQ(w4tune_selection_config(&selection),
               "mma_pipe row_tile=128 stages=4 | split_k=4 raster=2");
  ASSERT_EQ(w4tune_select(dispatcher_, &kProblem, 0, &selection), W4TUNE_OK);
  EXPECT_EQ(selection.match, W4TUNE_REFUSED);
  EXPECT_STREQ(selection.reason, "m must be at least 1");
  EXPECT_STREQ(w4tune_selection_config(&selection), "");
}

TEST_F(CApiTest, TellsTheScratchOfWhatIsServedByDequantising) {
  {
    Store store = Store::open(path_, Store::Mode::kReadWrite);
    const std::int64_t run = store.begin_run(samples::run_info());
    store.put_winners(run, samples::problem(), {samples::composite_winner(968)});
  }
  w4tune_dispatcher* dispatcher = nullptr;
  ASSERT_EQ(w4tune_open(path_.c_str(), -1, "a40", &dispatcher), W4TUNE_OK);
  w4tune_selection selection = {};
  ASSERT_EQ(w4tune_select(dispatcher, &kProblem, 968, &selection), W4TUNE_OK);
  EXPECT_EQ(w4tune_selection_scratch_bytes(&selection),
            samples::composite_winner(968).composite->scratch_bytes);
  EXPECT_STREQ(w4tune_selection_config(&selection), "dequant_cublas slice_rows=4096");
  ASSERT_EQ(w4tune_select(dispatcher, &kProblem, 16, &selection), W4TUNE_OK);
  EXPECT_EQ(w4tune_selection_scratch_bytes(&selection), 0U);
  EXPECT_EQ(w4tune_selection_scratch_bytes(nullptr), 0U);
  w4tune_close(dispatcher);
  expect(W4TUNE_INVALID_ARGUMENT, "path", w4tune_open_with_limit(nullptr, -1, 0, &dispatcher));
}

TEST_F(CApiTest, EveryErrorHasItsCodeAndWords) {
  w4tune_dispatcher* none = nullptr;
  expect(W4TUNE_INVALID_ARGUMENT, "path", w4tune_open(nullptr, -1, "a40", &none));
  expect(W4TUNE_INVALID_ARGUMENT, "dispatcher", w4tune_open(path_.c_str(), -1, "a40", nullptr));
  expect(W4TUNE_NOT_FOUND, "missing", w4tune_open("/missing", -1, "a40", &none));
  expect(W4TUNE_NOT_FOUND, "h100", w4tune_open(path_.c_str(), -1, "h100", &none));
  EXPECT_EQ(none, nullptr);

  w4tune_selection selection = {};
  expect(W4TUNE_INVALID_ARGUMENT, "dispatcher", w4tune_select(nullptr, &kProblem, 1, &selection));
  expect(W4TUNE_INVALID_ARGUMENT, "problem", w4tune_select(dispatcher_, nullptr, 1, &selection));
  expect(W4TUNE_INVALID_ARGUMENT, "selection", w4tune_select(dispatcher_, &kProblem, 1, nullptr));
  w4tune_problem wrong = kProblem;
  wrong.op = 2;
  expect(W4TUNE_INVALID_ARGUMENT, "problem.op = 2",
         w4tune_select(dispatcher_, &wrong, 1, &selection));
  wrong = kProblem;
  wrong.dtype = -1;
  expect(W4TUNE_INVALID_ARGUMENT, "problem.dtype = -1",
         w4tune_select(dispatcher_, &wrong, 1, &selection));

  ASSERT_EQ(w4tune_select(dispatcher_, &kProblem, 1, &selection), W4TUNE_OK);
  w4tune_operands operands = {};
  expect(W4TUNE_INVALID_ARGUMENT, "operands",
         w4tune_launch(dispatcher_, &selection, nullptr, nullptr));
  expect(W4TUNE_INVALID_ARGUMENT, "selection",
         w4tune_launch(dispatcher_, nullptr, &operands, nullptr));
  expect(W4TUNE_INVALID_ARGUMENT, "dispatcher",
         w4tune_launch(nullptr, &selection, &operands, nullptr));
  expect(W4TUNE_INVALID_ARGUMENT, "x is null",
         w4tune_launch(dispatcher_, &selection, &operands, nullptr));
  alignas(16) char memory[16] = {};
  operands = {memory, memory, memory, memory, 1, 0, 0, 0};
  expect(W4TUNE_NO_DEVICE, "for looking only",
         w4tune_launch(dispatcher_, &selection, &operands, nullptr));
  expect(W4TUNE_NO_DEVICE, "for looking only",
         w4tune_pack_weights_device(dispatcher_, &kProblem, memory, memory, W4TUNE_SIGNED, memory,
                                    memory, nullptr));
  expect(W4TUNE_NO_DEVICE, "for looking only",
         w4tune_dequantize_device(dispatcher_, &kProblem, memory, memory, memory, nullptr));
  expect(W4TUNE_NO_DEVICE, "for looking only",
         w4tune_activate(dispatcher_, W4TUNE_F16, memory, memory, 1, 8, nullptr));
  expect(W4TUNE_INVALID_ARGUMENT, "dtype = 2",
         w4tune_activate(dispatcher_, 2, memory, memory, 1, 8, nullptr));
  expect(W4TUNE_INVALID_ARGUMENT, "rotation is NULL", w4tune_rotate(dispatcher_, nullptr, nullptr));
  w4tune_rotation rotation = {memory, nullptr, memory, memory, 1, 8, 8, 0, W4TUNE_BF16};
  expect(W4TUNE_NO_DEVICE, "for looking only", w4tune_rotate(dispatcher_, &rotation, nullptr));
  rotation.block = 0;
  expect(W4TUNE_INVALID_ARGUMENT, "block = 0", w4tune_rotate(dispatcher_, &rotation, nullptr));
  expect(W4TUNE_INVALID_ARGUMENT, "defaults_path",
         w4tune_open_with_defaults(nullptr, nullptr, -1, &none));
  EXPECT_EQ(none, nullptr);
}

TEST_F(CApiTest, DequantizesOnTheHost) {
  const w4tune_problem problem = {W4TUNE_GEMM, 16, 64, 64, W4TUNE_F16};
  std::vector<std::uint8_t> nibbles(512, 0xb9);   // +1 and +3 in turns
  std::vector<std::uint16_t> scales(16, 0x4000);  // 2.0
  std::vector<std::uint32_t> packed(128);
  std::vector<std::uint16_t> packed_scales(16);
  ASSERT_EQ(w4tune_pack_weights_host(&problem, nibbles.data(), scales.data(), W4TUNE_OFFSET8,
                                     packed.data(), packed_scales.data()),
            W4TUNE_OK);
  std::vector<std::uint16_t> w(16 * 64);
  ASSERT_EQ(w4tune_dequantize_host(&problem, packed.data(), packed_scales.data(), w.data()),
            W4TUNE_OK);
  for (std::size_t i = 0; i < w.size(); ++i) {
    EXPECT_EQ(w[i], i % 2 == 0 ? 0x4000 : 0x4600) << i;  // 2.0 and 6.0
  }
  expect(W4TUNE_INVALID_ARGUMENT, "packed_scales",
         w4tune_dequantize_host(&problem, packed.data(), nullptr, w.data()));
}

TEST_F(CApiTest, PacksAsTheCppFunctionDoes) {
  const w4tune_problem problem = {W4TUNE_GEMM, 16, 64, 64, W4TUNE_BF16};
  std::size_t weight_bytes = 0;
  std::size_t scale_bytes = 0;
  ASSERT_EQ(w4tune_packed_sizes(&problem, &weight_bytes, &scale_bytes), W4TUNE_OK);
  ASSERT_EQ(weight_bytes, 512U);
  ASSERT_EQ(scale_bytes, 32U);
  std::vector<std::uint32_t> nibbles(128);
  std::vector<std::uint16_t> scales(16);
  for (std::uint32_t i = 0; i < nibbles.size(); ++i) nibbles[i] = i * 0x9e3779b9U;
  for (std::uint16_t i = 0; i < scales.size(); ++i) scales[i] = i;
  std::vector<std::uint32_t> packed(128);
  std::vector<std::uint32_t> expected(128);
  std::vector<std::uint16_t> packed_scales(16);
  ASSERT_EQ(w4tune_pack_weights_host(&problem, nibbles.data(), scales.data(), W4TUNE_SIGNED,
                                     packed.data(), packed_scales.data()),
            W4TUNE_OK);
  pack_weights(
      {.op = Op::kGemm, .n = 16, .k = 64, .group_size = 64, .dtype = Dtype::kBF16},
      {.nibbles = nibbles.data(), .scales = scales.data(), .encoding = NibbleEncoding::kSigned},
      expected.data(), packed_scales.data());
  EXPECT_EQ(packed, expected);

  expect(W4TUNE_INVALID_ARGUMENT, "encoding = 2",
         w4tune_pack_weights_host(&problem, nibbles.data(), scales.data(), 2, packed.data(),
                                  packed_scales.data()));
  expect(W4TUNE_INVALID_ARGUMENT, "scale_bytes",
         w4tune_packed_sizes(&problem, &weight_bytes, nullptr));
}

TEST_F(CApiTest, WordsBelongToTheThread) {
  w4tune_problem wrong = kProblem;
  wrong.op = 99;
  w4tune_selection selection = {};
  EXPECT_EQ(w4tune_select(dispatcher_, &wrong, 1, &selection), W4TUNE_INVALID_ARGUMENT);
  std::string of_another = "?";
  std::thread([&] { of_another = w4tune_last_error(); }).join();
  EXPECT_EQ(of_another, "");
  EXPECT_NE(std::string(w4tune_last_error()), "");
}

TEST_F(CApiTest, NullAndUnknownNumbersAreHarmless) {
  w4tune_close(nullptr);
  EXPECT_STREQ(w4tune_device_name(nullptr), "");
  EXPECT_EQ(w4tune_dram_gbps(nullptr), 0.0);
  EXPECT_EQ(w4tune_dram_gbps(dispatcher_), 0.0);  // opened for looking only
  EXPECT_STREQ(w4tune_selection_config(nullptr), "");
  EXPECT_STREQ(w4tune_match_name(W4TUNE_EXACT), "exact");
  EXPECT_STREQ(w4tune_match_name(W4TUNE_REFUSED), "refused");
  EXPECT_STREQ(w4tune_match_name(-1), "unknown");
  EXPECT_STREQ(w4tune_match_name(6), "unknown");
}

}  // namespace
}  // namespace w4tune

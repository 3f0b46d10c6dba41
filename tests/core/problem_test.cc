#include "core/problem.h"

#include <gtest/gtest.h>

#include <string>

#include "w4tune/error.h"

namespace w4tune {
namespace {

constexpr Problem kMlpUp{Op::kGemm, 16384, 2048, 128, Dtype::kF16};

std::string message_of(const std::string& text) {
  try {
    parse_problem(text);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
    return error.what();
  }
  return "";
}

TEST(Problem, TextRoundTrips) {
  EXPECT_EQ(to_string(kMlpUp), "gemm_n16384_k2048_g128_f16");
  EXPECT_EQ(to_string(Workload{kMlpUp, 968}), "gemm_n16384_k2048_g128_f16 m=968");
  for (const char* text : {"gemm_n16384_k2048_g128_f16", "geglu_n4096_k1024_g32_bf16",
                           "gemm_n16_k64_g64_bf16", "gemm_n32_k4096_g4096_f16"}) {
    EXPECT_EQ(to_string(parse_problem(text)), text);
  }
}

TEST(Problem, NamesWhatDoesNotParse) {
  EXPECT_NE(message_of("").find("1 parts"), std::string::npos);
  EXPECT_NE(message_of("gemv_n16_k64_g64_f16").find("'gemv'"), std::string::npos);
  EXPECT_NE(message_of("gemm_16_k64_g64_f16").find("'16'"), std::string::npos);
  EXPECT_NE(message_of("gemm_n16x_k64_g64_f16").find("'n16x'"), std::string::npos);
  EXPECT_NE(message_of("gemm_n_k64_g64_f16").find("'n'"), std::string::npos);
  EXPECT_NE(message_of("gemm_n99999999999_k64_g64_f16").find("n99999999999"), std::string::npos);
  EXPECT_NE(message_of("gemm_n16_k64_g64_fp8").find("'fp8'"), std::string::npos);
}

TEST(Problem, RefusesWhatNoKernelServes) {
  EXPECT_NE(message_of("gemm_n24_k64_g64_f16").find("multiple of 16"), std::string::npos);
  EXPECT_NE(message_of("gemm_n0_k64_g64_f16").find("N = 0"), std::string::npos);
  EXPECT_NE(message_of("gemm_n-16_k64_g64_f16").find("N = -16"), std::string::npos);
  EXPECT_NE(message_of("gemm_n16_k96_g32_f16").find("multiple of 64"), std::string::npos);
  EXPECT_NE(message_of("gemm_n16_k128_g48_f16").find("group size 48"), std::string::npos);
  EXPECT_NE(message_of("gemm_n16_k192_g128_f16").find("group size 128"), std::string::npos);
  EXPECT_NE(message_of("gemm_n2097152_k64_g64_f16").find("N = 2097152"), std::string::npos);
}

TEST(Problem, Sizes) {
  EXPECT_EQ(weight_rows(kMlpUp), 16384);
  EXPECT_EQ(num_groups(kMlpUp), 16);
  EXPECT_EQ(weight_bytes(kMlpUp), 16777216U);
  EXPECT_EQ(scale_bytes(kMlpUp), 524288U);
  Problem geglu = kMlpUp;
  geglu.op = Op::kGeglu;
  EXPECT_EQ(weight_rows(geglu), 32768);
  EXPECT_EQ(weight_bytes(geglu), 2 * weight_bytes(kMlpUp));
  EXPECT_EQ(scale_bytes(geglu), 2 * scale_bytes(kMlpUp));
  EXPECT_EQ(bytes_moved({kMlpUp, 1}), 16777216.0 + 524288.0 + 2.0 * (2048 + 16384));
  EXPECT_EQ(bytes_moved({geglu, 3}), 2.0 * (16777216.0 + 524288.0) + 3 * 2.0 * (2048 + 16384))
      << "y has the width of one of the two halves";
  EXPECT_EQ(operations({kMlpUp, 3}), 2.0 * 3 * 16384 * 2048);
  EXPECT_EQ(operations({geglu, 3}), 2.0 * operations({kMlpUp, 3}));
}

TEST(Problem, EveryMatchHasAName) {
  EXPECT_EQ(to_string(Match::kExact), "exact");
  EXPECT_EQ(to_string(Match::kInterpolatedM), "interpolated_m");
  EXPECT_EQ(to_string(Match::kSameArch), "same_arch");
  EXPECT_EQ(to_string(Match::kPredicted), "predicted");
  EXPECT_EQ(to_string(Match::kDefault), "default");
  EXPECT_EQ(to_string(Match::kRefused), "refused");
}

}  // namespace
}  // namespace w4tune

#include "core/kernel_config.h"

#include <gtest/gtest.h>

#include <string>

#include "w4tune/error.h"

namespace w4tune {
namespace {

const KernelConfig kConfig{"mma_pipe", {{"row_tile", 128}, {"token_tile", 16}, {"bias", -3}}};

TEST(KernelConfig, TextRoundTripsAndKeepsTheOrder) {
  EXPECT_EQ(to_string(kConfig), "mma_pipe row_tile=128 token_tile=16 bias=-3");
  EXPECT_EQ(parse_kernel_config(to_string(kConfig)), kConfig);
  EXPECT_EQ(parse_kernel_config("gemv"), (KernelConfig{"gemv", {}}));
}

TEST(KernelConfig, GivesAParameterByName) {
  EXPECT_EQ(kConfig.at("row_tile"), 128);
  EXPECT_EQ(kConfig.at("bias"), -3);
  EXPECT_DEATH(static_cast<void>(kConfig.at("stages")), "no such parameter");
}

TEST(KernelConfig, NamesThePartThatDoesNotFit) {
  for (const std::string part : {"row_tile", "=3", "a=", "a=1x", "a=1=2"}) {
    try {
      parse_kernel_config("mma_pipe " + part);
      FAIL() << part;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
      EXPECT_NE(std::string(error.what()).find("'" + part + "'"), std::string::npos);
    }
  }
  EXPECT_THROW(parse_kernel_config(""), Error);
}

}  // namespace
}  // namespace w4tune

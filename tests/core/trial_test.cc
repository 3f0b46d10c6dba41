#include "core/trial.h"

#include <gtest/gtest.h>

#include "w4tune/error.h"

namespace w4tune {
namespace {

TEST(Trial, OutcomesRoundTrip) {
  for (const Outcome outcome :
       {Outcome::kOk, Outcome::kInvalidConfig, Outcome::kCompileError, Outcome::kResourceLimit,
        Outcome::kLaunchError, Outcome::kWrongResult, Outcome::kTimeout}) {
    EXPECT_EQ(parse_outcome(to_string(outcome)), outcome);
  }
  EXPECT_EQ(to_string(Outcome::kWrongResult), "wrong_result");
}

TEST(Trial, AnUnknownOutcomeComesFromAnotherFile) {
  try {
    parse_outcome("lost");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kDatabase);
  }
}

TEST(Trial, ACandidateSaysItsScheduleToo) {
  const Candidate candidate{{"mma_pipe", {{"row_tile", 128}}}, {.split_k = 4, .raster = 1}};
  EXPECT_EQ(to_string(candidate), "mma_pipe row_tile=128 | split_k=4 raster=1");
}

TEST(Trial, ItsTimeIsTheMedianOfItsSamples) {
  Trial trial;
  trial.time_us = {5.0, 3.0, 4.0};
  EXPECT_EQ(trial.time_us_median(), 4.0);
}

}  // namespace
}  // namespace w4tune

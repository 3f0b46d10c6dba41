#include "generated/version.h"

#include <gtest/gtest.h>

namespace w4tune {
namespace {

TEST(Version, IsWritten) {
  EXPECT_EQ(kVersion.find_first_not_of("0123456789."), std::string_view::npos);
  EXPECT_FALSE(kCommit.empty());
}

}  // namespace
}  // namespace w4tune

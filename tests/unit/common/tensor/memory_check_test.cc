#include "common/tensor/memory_check.h"

#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace rein::tensor {
namespace {

TEST(MemoryCheckTest, WhatFitsIsFine) {
  EXPECT_TRUE(CheckHostMemory("the weights", 1 << 20).ok());
}

TEST(MemoryCheckTest, WhatDoesNotFitIsNamedWithBothSizes) {
  absl::Status status = CheckHostMemory("the weights", uint64_t{1} << 60);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()),
              ::testing::MatchesRegex("out of memory: the weights take 1073741824.0 GiB, "
                                      "[0-9]+.[0-9] GiB are left"));
}

}  // namespace
}  // namespace rein::tensor

#include "reward/rules/length.h"

#include <gtest/gtest.h>

namespace rein::reward {
namespace {

TEST(LengthPenaltyTest, FallsOverTheBuffer) {
  LengthOptions options = {.max_tokens = 100, .buffer_tokens = 20, .min_tokens = 5};
  EXPECT_EQ(LengthPenalty(4, options), -1.0);
  EXPECT_EQ(LengthPenalty(5, options), 0.0);
  EXPECT_EQ(LengthPenalty(80, options), 0.0);
  EXPECT_EQ(LengthPenalty(90, options), -0.5);
  EXPECT_EQ(LengthPenalty(100, options), -1.0);
  EXPECT_EQ(LengthPenalty(110, options), -1.5);
}

TEST(LengthPenaltyTest, WithoutBufferItIsAStep) {
  LengthOptions options = {.max_tokens = 100};
  EXPECT_EQ(LengthPenalty(0, options), 0.0);
  EXPECT_EQ(LengthPenalty(99, options), 0.0);
  EXPECT_EQ(LengthPenalty(100, options), -1.0);
}

}  // namespace
}  // namespace rein::reward

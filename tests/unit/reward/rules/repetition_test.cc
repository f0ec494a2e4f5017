#include "reward/rules/repetition.h"

#include <string>

#include <gtest/gtest.h>

namespace rein::reward {
namespace {

TEST(RepetitionTest, CountsRepeatedRuns) {
  EXPECT_DOUBLE_EQ(WordRepetition("a b c d e", 3), 0);
  EXPECT_DOUBLE_EQ(WordRepetition("one two one two one two", 2), 2.0 / 5 - 1);
  EXPECT_DOUBLE_EQ(WordRepetition("No no NO no", 1), -0.75);
  EXPECT_DOUBLE_EQ(WordRepetition("a  b\n\ta b", 2), 2.0 / 3 - 1);
  EXPECT_DOUBLE_EQ(WordRepetition("a b", 3), 0) << "shorter than a run";
  EXPECT_DOUBLE_EQ(WordRepetition("", 1), 0);
  EXPECT_DOUBLE_EQ(TokenRepetition({5, 5, 5, 5}, 2), 1.0 / 3 - 1);
  EXPECT_DOUBLE_EQ(TokenRepetition({1, 2, 3, 1, 2, 4}, 2), 4.0 / 5 - 1);
  EXPECT_DOUBLE_EQ(TokenRepetition({}, 2), 0);
}

TEST(RepetitionTest, LongTextsStayCheap) {
  std::string same;
  for (int i = 0; i < 200'000; ++i) same += "a ";
  EXPECT_NEAR(WordRepetition(same, 64), -1, 1e-4);
}

}  // namespace
}  // namespace rein::reward

#include "reward/rules/boxed_math.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace rein::reward {
namespace {

using ::testing::HasSubstr;

double Score(absl::string_view boxed, absl::string_view answer) {
  return BoxedMath("So it is \\boxed{" + std::string(boxed) + "}.", answer).value_or(-1);
}

TEST(BoxedMathTest, SpellingsOfOneAnswerAreEqual) {
  EXPECT_EQ(Score("42", "42"), 1.0);
  EXPECT_EQ(Score("42", R"(the answer is \boxed{42})"), 1.0);
  EXPECT_EQ(Score(R"(\frac{1}{2})", R"(\dfrac12)"), 1.0);
  EXPECT_EQ(Score("1/2", R"(\tfrac{1}{2})"), 1.0);
  EXPECT_EQ(Score("0.5", R"(\frac{1}{2})"), 1.0);
  EXPECT_EQ(Score(".5", "0.5"), 1.0);
  EXPECT_EQ(Score("-\\frac{3}{4}", "-0.75"), 1.0);
  EXPECT_EQ(Score("1,000", "1000"), 1.0);
  EXPECT_EQ(Score("42.0", "42"), 1.0);
  EXPECT_EQ(Score(R"(\$42)", "42"), 1.0);
  EXPECT_EQ(Score(R"(42\%)", "42"), 1.0);
  EXPECT_EQ(Score(R"(42^\circ)", "42"), 1.0);
  EXPECT_EQ(Score(R"(42\text{ cm})", "42"), 1.0);
  EXPECT_EQ(Score(R"(\text{Paris})", "Paris"), 1.0);
  EXPECT_EQ(Score("x = 5", "5"), 1.0);
  EXPECT_EQ(Score(R"(\left( 1,\ 2 \right))", "(1,2)"), 1.0);
  EXPECT_EQ(Score(R"(\sqrt3)", R"(\sqrt{3})"), 1.0);
  EXPECT_EQ(Score(R"(2 \cdot 3)", R"(2\times3)"), 1.0);
}

TEST(BoxedMathTest, OtherAnswersAreNot) {
  EXPECT_EQ(Score("43", "42"), 0.0);
  EXPECT_EQ(Score("-42", "42"), 0.0);
  EXPECT_EQ(Score(R"(\frac{2}{1})", R"(\frac{1}{2})"), 0.0);
  EXPECT_EQ(Score("(2,1)", "(1,2)"), 0.0);
  EXPECT_EQ(Score("", "42"), 0.0);
  EXPECT_EQ(Score("1234567891", "1234567890"), 0.0);
  EXPECT_EQ(*BoxedMath("42", "42"), 0.0) << "not in a box";
}

TEST(BoxedMathTest, AnEmptyAnswerIsAnError) {
  EXPECT_THAT(std::string(BoxedMath(R"(\boxed{1})", " ").status().message()),
              HasSubstr("the answer is empty"));
}

TEST(BoxedMathTest, HostileTextTakesLinearTime) {
  std::string open, closed;
  for (int i = 0; i < 150'000; ++i) open += "\\boxed{";
  for (int i = 0; i < 20'000; ++i) closed += "\\boxed{\\text{";
  EXPECT_EQ(*BoxedMath(open, "1"), 0.0);
  EXPECT_EQ(*BoxedMath(closed + std::string(40'000, '}'), "1"), 0.0);
  EXPECT_EQ(
      *BoxedMath("\\boxed{" + std::string(1 << 20, '{') + std::string(1 << 20, '}') + "}", "1"),
      0.0);
}

}  // namespace
}  // namespace rein::reward

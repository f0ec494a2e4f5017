#include "reward/math/extract_answer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace rein::reward::math {
namespace {

TEST(LastBoxedTest, FindsTheLastThatCloses) {
  EXPECT_EQ(LastBoxed(R"(\boxed{1} then \boxed{\frac{a}{b}}.)"), R"(\frac{a}{b})");
  EXPECT_EQ(LastBoxed(R"(\boxed{1} then \boxed{2)"), "1");
  EXPECT_EQ(LastBoxed(R"(\boxed{\{1, 2\}})"), R"(\{1, 2\})");
  EXPECT_EQ(LastBoxed(R"(\fbox{3})"), "3");
  EXPECT_EQ(LastBoxed(R"($\boxed 12$ so)"), "12");
  EXPECT_EQ(LastBoxed(R"(\boxed{a \boxed{b} c})"), "b");
  EXPECT_EQ(LastBoxed("boxed{1}"), std::nullopt);
  EXPECT_EQ(LastBoxed(R"(\boxed)"), std::nullopt);
  EXPECT_EQ(LastBoxed(""), std::nullopt);
}

std::string After(absl::string_view text) {
  return AfterMarker(text, DefaultMarkers()).value_or("nothing");
}

TEST(AfterMarkerTest, TakesWhatFollowsTheLast) {
  EXPECT_EQ(After("It is 3 + 4.\n#### 7"), "7");
  EXPECT_EQ(After("#### 7\nno, #### 8\n"), "8");
  EXPECT_EQ(After("So the answer is 1,234.5. Done"), "1,234.5");
  EXPECT_EQ(After("The final Answer: **42**"), "42");
  EXPECT_EQ(After("**Answer:** $x = 5$"), "$x = 5$");
  EXPECT_EQ(After("**Answer**: 5"), "5");
  EXPECT_EQ(After("answer is:\n12"), "12");
  EXPECT_EQ(After("<think>the answer is 3</think><answer> 4 </answer> bye"), "4");
  EXPECT_EQ(After("<answer>4"), "4");
  EXPECT_EQ(After("no such thing"), "nothing");
  EXPECT_EQ(After("the answer is"), "nothing");
  EXPECT_EQ(After("the answer is  \n "), "nothing");
  EXPECT_EQ(After(""), "nothing");
  EXPECT_EQ(AfterMarker("Lösung: 5", {"lösung:"}), "5");
}

TEST(AfterMarkerTest, HostileTextTakesLinearTime) {
  std::string text;
  for (int i = 0; i < 100'000; ++i) text += "answer is ";
  EXPECT_EQ(After(text), "nothing");
}

}  // namespace
}  // namespace rein::reward::math

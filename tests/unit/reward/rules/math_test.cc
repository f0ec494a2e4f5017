#include "reward/rules/math.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "reward/math/extract_answer.h"

namespace rein::reward {
namespace {

using ::testing::HasSubstr;

double Score(absl::string_view completion, absl::string_view answer,
             v1::AnswerPlace place = v1::ANSWER_PLACE_ANY) {
  return MathAnswer(completion, answer, {.place = place, .markers = math::DefaultMarkers()})
      .value_or(-1);
}

TEST(MathAnswerTest, TakesTheFinalAnswer) {
  EXPECT_EQ(Score("First \\boxed{1}, then \\boxed{\\frac{1}{2}}.", "0.5"), 1);
  EXPECT_EQ(Score("So the answer is 0.5.", "\\frac{1}{2}"), 1);
  EXPECT_EQ(Score("The answer is \\boxed{x=5}", "5"), 1);
  EXPECT_EQ(Score("#### 1,200", "Natalia sold 1200.\n#### 1200"), 1) << "a GSM8K answer";
  EXPECT_EQ(Score("\\boxed{2}", "so it is \\boxed{2}"), 1) << "a worked answer";
  EXPECT_EQ(Score("The answer is 3. \\boxed{4}", "3"), 0) << "the box counts";
  EXPECT_EQ(Score("42", "42"), 0) << "neither box nor marker";
  EXPECT_EQ(Score("", "42"), 0);
}

TEST(MathAnswerTest, ThePlaceDecides) {
  const std::string both = "\\boxed{1} but the answer is 2";
  EXPECT_EQ(Score(both, "1"), 1);
  EXPECT_EQ(Score(both, "1", v1::ANSWER_PLACE_BOXED), 1);
  EXPECT_EQ(Score(both, "2", v1::ANSWER_PLACE_MARKER), 1);
  EXPECT_EQ(Score("the answer is 2", "2", v1::ANSWER_PLACE_BOXED), 0);
  EXPECT_EQ(Score("\\boxed{2}", "2", v1::ANSWER_PLACE_MARKER), 0);
  EXPECT_EQ(Score(" 1/2 ", "0.5", v1::ANSWER_PLACE_WHOLE), 1);
}

TEST(MathAnswerTest, EveryCandidateIsNoAnswer) {
  EXPECT_EQ(Score("\\boxed{1, 2, 3, 4}", "3"), 0);
  EXPECT_EQ(Score("\\boxed{3 \\text{ or } 4}", "3"), 0);
  EXPECT_EQ(Score("the answer is 3, or 4", "3"), 0);
}

TEST(MathAnswerTest, AnEmptyAnswerIsAnError) {
  EXPECT_THAT(std::string(MathAnswer("\\boxed{1}", " ", {}).status().message()),
              HasSubstr("the answer is empty"));
}

}  // namespace
}  // namespace rein::reward

#include "reward/rules/regex_match.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace rein::reward {
namespace {

using ::testing::HasSubstr;

double Score(const std::string& pattern, absl::string_view text, absl::string_view answer) {
  auto score = RegexMatch(*Pattern::Compile(pattern), text, answer, [] { return false; });
  EXPECT_TRUE(score.ok()) << score.status();
  return score.value_or(-1);
}

TEST(RegexMatchTest, WithoutGroupAMatchIsEnough) {
  EXPECT_EQ(Score("<think>.*</think>", "a <think>\nb</think> c", ""), 1.0);
  EXPECT_EQ(Score("<think>.*</think>", "a <think>", ""), 0.0);
  EXPECT_EQ(Score("", "", ""), 1.0);
}

TEST(RegexMatchTest, TheLastCapturedTextMustBeTheAnswer) {
  EXPECT_EQ(Score(R"(answer: *(\d+))", "answer: 7, no, answer: 42", "42"), 1.0);
  EXPECT_EQ(Score(R"(answer: *(\d+))", "answer: 42, no, answer: 7", "42"), 0.0);
  EXPECT_EQ(Score(R"(<a>(.*?)</a>(x)?)", "<a> 42 </a>", " 42"), 1.0);
  EXPECT_EQ(Score("(a)|b", "ab", "a"), 0.0) << "the last match captured nothing";
  EXPECT_EQ(Score("(x*)", "aéb", ""), 1.0) << "empty matches end";
}

TEST(RegexMatchTest, ARunWithoutEndIsStopped) {
  std::string text(1 << 20, 'a');
  int asked = 0;
  auto score = RegexMatch(*Pattern::Compile("(a|ab.*c)"), text, "a", [&] { return ++asked > 3; });
  EXPECT_TRUE(absl::IsDeadlineExceeded(score.status()));
  EXPECT_EQ(asked, 4);
}

TEST(PatternTest, RefusesWhatRe2Refuses) {
  auto error = [](const std::string& pattern) {
    absl::Status status = Pattern::Compile(pattern).status();
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
    return std::string(status.message());
  };
  EXPECT_THAT(error("(a"), HasSubstr("pattern '(a' is not in RE2's syntax: missing"));
  EXPECT_THAT(error(R"((a)\1)"), HasSubstr("invalid escape sequence: \\1"));
  EXPECT_THAT(error("(?=a)"), HasSubstr("invalid perl operator"));
  EXPECT_THAT(error("((a{1000}){1000}){1000}"), HasSubstr("repetition"));
}

TEST(PatternTest, TheCatastropheOfOthersIsLinear) {
  Pattern pattern = *Pattern::Compile("(a+)+$");
  EXPECT_FALSE(pattern.FitsAll(std::string(1 << 20, 'a') + "!"));
  EXPECT_TRUE(pattern.FitsAll(" aaa\n"));
}

}  // namespace
}  // namespace rein::reward

#include "reward/rules/registry.h"

#include <gmock/gmock.h>
#include <google/protobuf/text_format.h>
#include <gtest/gtest.h>

namespace rein::reward {
namespace {

using ::testing::HasSubstr;

v1::RewardConfig Config(const std::string& text) {
  v1::RewardConfig config;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &config)) << text;
  return config;
}

absl::StatusOr<double> Score(const std::string& config, const std::string& completion,
                             const std::string& answer, int tokens = 3) {
  absl::StatusOr<Rule> rule = MakeRule(Config(config));
  if (!rule.ok()) return rule.status();
  v1::RewardItem item;
  item.mutable_completion()->set_text(completion);
  for (int i = 0; i < tokens; ++i) item.mutable_completion()->add_token_ids(i);
  item.set_answer(answer);
  absl::StatusOr<Verdict> verdict = (*rule)(item, [] { return false; });
  if (!verdict.ok()) return verdict.status();
  return verdict->score;
}

TEST(RegistryTest, BuildsEveryRule) {
  EXPECT_EQ(*Score("exact_match { ignore_case: true }", "YES", "yes"), 1.0);
  EXPECT_EQ(*Score("regex { pattern: 'is (.*)$' }", "it is 4", "4"), 1.0);
  EXPECT_EQ(*Score("numeric { tolerance: 0.1 }", "4.05", "4.0"), 1.0);
  EXPECT_EQ(*Score("numeric {}", "4.05", "4.0"), 0.0);
  EXPECT_EQ(*Score("boxed_math {}", "\\boxed{4}", "4"), 1.0);
  EXPECT_EQ(*Score("format { regex: '-?[0-9]+' }", " -4 ", ""), 1.0);
  EXPECT_EQ(*Score("format { regex: '-?[0-9]+' }", "is -4", ""), 0.0);
  EXPECT_EQ(*Score("length { max_tokens: 4 buffer_tokens: 2 }", "", "", 3), -0.5);
  EXPECT_EQ(*Score("math {}", "\\boxed{\\frac{1}{2}}", "0.5"), 1.0);
  EXPECT_EQ(*Score("math { markers: 'Lösung:' }", "lösung: 5", "5"), 1.0);
  EXPECT_EQ(*Score("math { place: ANSWER_PLACE_WHOLE tolerance: 0.01 }", "3.14", "3.1416"), 1.0);
  EXPECT_EQ(*Score("repetition { ngram: 1 }", "a a", ""), -0.5);
  EXPECT_EQ(*Score("repetition { ngram: 1 unit: REPETITION_UNIT_TOKENS }", "a a", "", 3), 0.0);
  EXPECT_EQ(*Score("json {}", "{}", ""), 1.0);
  EXPECT_EQ(*Score("script { name: 'Han' }", "a文", ""), 0.5);
}

TEST(RegistryTest, NamesRules) {
  EXPECT_EQ(RuleName(Config("boxed_math {}")), "boxed_math");
  EXPECT_EQ(RuleName(Config("boxed_math {} name: 'final'")), "final");
}

TEST(RegistryTest, RefusesBadSettings) {
  auto error = [](const std::string& config) {
    absl::Status status = MakeRule(Config(config)).status();
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
    return std::string(status.message());
  };
  EXPECT_THAT(error("weight: 1"), HasSubstr("no rule is set"));
  EXPECT_THAT(error("regex { pattern: '(' }"), HasSubstr("pattern '('"));
  EXPECT_THAT(error("format { regex: '[' }"), HasSubstr("pattern '['"));
  EXPECT_THAT(error("length {}"), HasSubstr("max_tokens must be at least 1"));
  EXPECT_THAT(error("length { max_tokens: 4 buffer_tokens: 5 }"),
              HasSubstr("buffer_tokens 5 and min_tokens 0 must not exceed max_tokens 4"));
}

TEST(RegistryTest, RefusesHugeCompletions) {
  EXPECT_EQ(*Score("numeric {}", std::string(kMaxCompletionBytes, ' '), "1"), 0.0);
  EXPECT_THAT(
      std::string(
          Score("numeric {}", std::string(kMaxCompletionBytes + 1, ' '), "1").status().message()),
      HasSubstr("completion of 1048577 bytes, at most 1048576 are scored"));
}

}  // namespace
}  // namespace rein::reward

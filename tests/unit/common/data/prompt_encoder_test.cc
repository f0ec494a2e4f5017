#include "common/data/prompt_encoder.h"

#include <filesystem>
#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace rein::data {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// Ids: a 0, b 1, ab 2, newline 3; <u> 4, <s> 5, <bot> 6, <end> 7.
std::string Tokenizer() {
  std::string added;
  const char* names[] = {"<u>", "<s>", "<bot>", "<end>"};
  for (int i = 0; i < 4; ++i) {
    added += std::string(i == 0 ? "" : ",") + "{\"id\": " + std::to_string(4 + i) +
             ", \"content\": \"" + names[i] +
             "\", \"single_word\": false, \"lstrip\": false, \"rstrip\": false, "
             "\"normalized\": false, \"special\": true}";
  }
  return "{\"version\": \"1.0\", \"added_tokens\": [" + added +
         "], \"pre_tokenizer\": null, \"decoder\": null, \"model\": {\"type\": \"BPE\", "
         "\"vocab\": {\"a\": 0, \"b\": 1, \"ab\": 2, \"\\n\": 3}, \"merges\": [\"a b\"]}}";
}

constexpr const char* kTemplate =
    "{% for m in messages %}{{ {'user': '<u>', 'system': '<s>', 'assistant': '<bot>'}[m.role] }}"
    "{{ m.content }}<end>{{ '\\n' }}{% endfor %}{% if add_generation_prompt %}<bot>{% endif %}";

class PromptEncoderTest : public testing::Test {
 protected:
  void Load(const std::string& chat_template, const std::string& eos = "<end>") {
    std::string folder =
        testing::TempDir() + "/" + testing::UnitTest::GetInstance()->current_test_info()->name();
    std::filesystem::create_directories(folder);
    std::ofstream(folder + "/tokenizer.json") << Tokenizer();
    std::ofstream(folder + "/chat_template.jinja") << chat_template;
    std::ofstream(folder + "/tokenizer_config.json") << "{\"eos_token\": \"" << eos << "\"}";
    auto text = text::ModelText::Load(folder);
    ASSERT_TRUE(text.ok()) << text.status();
    text_ = *std::move(text);
  }

  PromptRow row_ = {
      .messages = {{"user", "a"}}, .is_text = true, .answer = "b", .has_answer = true};
  std::unique_ptr<text::ModelText> text_;
};

TEST_F(PromptEncoderTest, UsesTheChatTemplate) {
  Load(kTemplate);
  EXPECT_THAT(*PromptEncoder(*text_, {}).EncodePrompt(row_), ElementsAre(4, 0, 7, 3, 6));
  EXPECT_THAT(*PromptEncoder(*text_, {.system = "ab"}).EncodePrompt(row_),
              ElementsAre(5, 2, 7, 3, 4, 0, 7, 3, 6));
}

TEST_F(PromptEncoderTest, AnAnswerEndsWithItsStopToken) {
  Load(kTemplate);
  AnsweredPrompt target = *PromptEncoder(*text_, {}).EncodeAnswer(row_);
  EXPECT_THAT(target.token_ids, ElementsAre(4, 0, 7, 3, 6, 1, 7));
  EXPECT_EQ(target.prompt_tokens, 5u);
}

TEST_F(PromptEncoderTest, EachStepEndsWithItsTarget) {
  Load(kTemplate);
  PromptEncoder encoder(*text_, {});
  AnsweredPrompt steps = *encoder.EncodeSteps(row_, {"ab", "b"}, "\n");
  // <u> a <end> \n <bot> ab \n b \n
  EXPECT_THAT(steps.token_ids, ElementsAre(4, 0, 7, 3, 6, 2, 3, 1, 3));
  EXPECT_THAT(steps.loss_mask, ElementsAre(0, 0, 0, 0, 0, 0, 1, 0, 1));
  EXPECT_EQ(steps.prompt_tokens, 5u);
  EXPECT_THAT(std::string(encoder.EncodeSteps(row_, {}, "\n").status().message()), HasSubstr("has no steps"));
}

TEST_F(PromptEncoderTest, EveryTurnOfTheAssistantIsLearnedAndNothingElse) {
  Load(kTemplate);
  row_.messages = {{"user", "a"}, {"assistant", "ab"}, {"user", "b"}};
  PromptEncoder all(*text_, {.all_turns = true});
  AnsweredPrompt target = *all.EncodeAnswer(row_);
  // <u> a <end> \n <bot> ab <end> \n <u> b <end> \n <bot> b <end>
  EXPECT_THAT(target.token_ids, ElementsAre(4, 0, 7, 3, 6, 2, 7, 3, 4, 1, 7, 3, 6, 1, 7));
  EXPECT_THAT(target.loss_mask, ElementsAre(0, 0, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 1, 1));
  EXPECT_EQ(target.prompt_tokens, 13u);
  AnsweredPrompt last = *PromptEncoder(*text_, {}).EncodeAnswer(row_);
  EXPECT_EQ(last.token_ids, target.token_ids);
  EXPECT_THAT(last.loss_mask, ElementsAre(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1));
}

TEST_F(PromptEncoderTest, ATemplateThatDropsEarlierTurnsIsToldBy) {
  Load("{{ messages[-1].content }}<end>{% if add_generation_prompt %}<bot>{% endif %}");
  row_.messages = {{"user", "a"}, {"assistant", "ab"}, {"user", "b"}};
  EXPECT_THAT(std::string(PromptEncoder(*text_, {.all_turns = true}).EncodeAnswer(row_).status().message()),
              HasSubstr("changes what came before once message 2 follows"));
}

TEST_F(PromptEncoderTest, ATemplateWithoutStopTokenGetsOne) {
  Load("{% for m in messages %}{{ m.content }}{% endfor %}");
  EXPECT_THAT(PromptEncoder(*text_, {}).EncodeAnswer(row_)->token_ids, ElementsAre(0, 1, 7));
}

constexpr const char* kToolTemplate =
    "{% if tools %}<s>{% for t in tools %}{{ t.function.name }}{% endfor %}<end>{{ '\\n' }}{% endif %}"
    "{% for m in messages %}{{ {'user': '<u>', 'tool': '<s>', 'assistant': '<bot>'}[m.role] }}{{ m.content }}"
    "{% for c in m.tool_calls %}{{ c.function.name }}{{ c.function.arguments.x }}{% endfor %}<end>{{ '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}<bot>{% endif %}";
constexpr const char* kCall = R"({"tool_calls": [{"function": {"name": "ab", "arguments": {"x": "b"}}}]})";

TEST_F(PromptEncoderTest, ToolsAreShownAndCallsLearned) {
  Load(kToolTemplate);
  row_.tools = {R"({"type": "function", "function": {"name": "ab"}})"};
  row_.answer.clear();
  row_.answer_fields = kCall;
  AnsweredPrompt target = *PromptEncoder(*text_, {}).EncodeAnswer(row_);
  EXPECT_THAT(target.token_ids, ElementsAre(5, 2, 7, 3, 4, 0, 7, 3, 6, 2, 1, 7));
  EXPECT_THAT(target.loss_mask, ElementsAre(0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1));

  // The call is an earlier turn, its result is only read.
  row_.messages = {{"user", "a"}, {"assistant", "", kCall}, {"tool", "b"}};
  row_.answer = "a";
  row_.answer_fields.clear();
  target = *PromptEncoder(*text_, {.all_turns = true}).EncodeAnswer(row_);
  EXPECT_THAT(target.token_ids, ElementsAre(5, 2, 7, 3, 4, 0, 7, 3, 6, 2, 1, 7, 3, 5, 1, 7, 3, 6, 0, 7));
  EXPECT_THAT(target.loss_mask, ElementsAre(0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 0, 0, 0, 0, 0, 0, 1, 1));
}

TEST_F(PromptEncoderTest, ATemplateThatLeavesToolsOutIsToldBy) {
  Load(kTemplate);
  row_.tools = {R"({"type": "function", "function": {"name": "ab"}})"};
  EXPECT_THAT(std::string(PromptEncoder(*text_, {}).EncodePrompt(row_).status().message()),
              HasSubstr("the chat template does not show the tool ab to the model"));
  row_.tools.clear();
  row_.answer_fields = kCall;
  EXPECT_THAT(std::string(PromptEncoder(*text_, {}).EncodeAnswer(row_).status().message()),
              HasSubstr("the chat template does not show calls such as of ab to the model"));
}

TEST_F(PromptEncoderTest, ATurnCountsAsMuchAsItsWeight) {
  Load(kTemplate);
  row_.messages = {{"user", "a"}, {"assistant", "b", "", 0}, {"user", "a"}, {"assistant", "a"}, {"user", "b"}};
  row_.answer_weight = 0.5;
  AnsweredPrompt target = *PromptEncoder(*text_, {.all_turns = true}).EncodeAnswer(row_);
  EXPECT_THAT(target.token_ids,
              ElementsAre(4, 0, 7, 3, 6, 1, 7, 3, 4, 0, 7, 3, 6, 0, 7, 3, 4, 1, 7, 3, 6, 1, 7));
  EXPECT_THAT(target.loss_mask, ElementsAre(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 1, 1));
  EXPECT_THAT(target.weights, ElementsAre(1, 1, 0.5, 0.5));

  target = *PromptEncoder(*text_, {}).EncodeAnswer(row_);
  EXPECT_THAT(target.weights, ElementsAre(0.5, 0.5));
  row_.answer_weight = 1;
  EXPECT_TRUE(PromptEncoder(*text_, {}).EncodeAnswer(row_)->weights.empty());
}

TEST_F(PromptEncoderTest, AnEmptyTurnIsNotLearned) {
  Load(kTemplate);
  row_.answer = " \n";
  EXPECT_TRUE(PromptEncoder(*text_, {}).EncodeAnswer(row_).ok()) << "one that is scored, say";
  EXPECT_THAT(std::string(PromptEncoder(*text_, {.refuse_empty = true}).EncodeAnswer(row_).status().message()),
              HasSubstr("the last turn of the assistant is empty"));
  row_.messages = {{"user", "a"}, {"assistant", ""}, {"user", "a"}};
  row_.answer = "b";
  const PromptEncoder encoder(*text_, {.all_turns = true, .refuse_empty = true});
  EXPECT_THAT(std::string(encoder.EncodeAnswer(row_).status().message()), HasSubstr("turn 2 of the assistant is empty"));
  row_.messages[1].weight = 0;
  EXPECT_TRUE(encoder.EncodeAnswer(row_).ok());
}

TEST_F(PromptEncoderTest, PlainText) {
  Load(kTemplate);
  PromptEncoder encoder(*text_, {.chat_template = false});
  EXPECT_THAT(*encoder.EncodePrompt(row_), ElementsAre(0));
  EXPECT_THAT(encoder.EncodeAnswer(row_)->token_ids, ElementsAre(0, 1, 7));
  row_.is_text = false;
  EXPECT_THAT(std::string(encoder.EncodePrompt(row_).status().message()),
              HasSubstr("needs chat_template: true"));
}

TEST_F(PromptEncoderTest, SaysWhatIsMissing) {
  Load("{{ messages | length }}{% if add_generation_prompt %}a{% else %}b{% endif %}");
  EXPECT_THAT(std::string(PromptEncoder(*text_, {}).EncodeAnswer(row_).status().message()),
              HasSubstr("the chat template changes the prompt"));
  row_.has_answer = false;
  EXPECT_THAT(std::string(PromptEncoder(*text_, {}).EncodeAnswer(row_).status().message()),
              HasSubstr("no answer to learn"));
  row_.messages[0].content = "";
  EXPECT_THAT(
      std::string(
          PromptEncoder(*text_, {.chat_template = false}).EncodePrompt(row_).status().message()),
      HasSubstr("the prompt has no token"));
}

}  // namespace
}  // namespace rein::data

#include "common/text/model_text.h"

#include <filesystem>
#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

namespace rein::text {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr const char* kTokenizer = R"({
  "version": "1.0",
  "added_tokens": [
    {"id": 6, "content": "<|user|>", "single_word": false, "lstrip": false, "rstrip": false,
     "normalized": false, "special": true},
    {"id": 7, "content": "<|bot|>", "single_word": false, "lstrip": false, "rstrip": false,
     "normalized": false, "special": true},
    {"id": 8, "content": "<|end|>", "single_word": false, "lstrip": false, "rstrip": false,
     "normalized": false, "special": true}],
  "pre_tokenizer": null,
  "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true,
              "use_regex": true},
  "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "Ġ": 2, "ab": 3, "Ã": 4, "©": 5},
            "merges": ["a b"]}
})";

constexpr const char* kTemplate =
    "{% for m in messages %}{{ '<|' ~ m.role ~ '|>' }}{{ m.content }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}<|bot|>{% endif %}";

class ModelTextTest : public testing::Test {
 protected:
  ModelTextTest()
      : folder_(testing::TempDir() + "/" +
                testing::UnitTest::GetInstance()->current_test_info()->name()) {
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
  }

  void Write(const std::string& name, const std::string& content) {
    std::ofstream(folder_ + "/" + name) << content;
  }

  void WriteConfig(nlohmann::json config) { Write("tokenizer_config.json", config.dump()); }

  std::unique_ptr<ModelText> Load() {
    absl::StatusOr<std::unique_ptr<ModelText>> text = ModelText::Load(folder_);
    EXPECT_TRUE(text.ok()) << text.status();
    return text.ok() ? *std::move(text) : nullptr;
  }

  std::string LoadError() { return std::string(ModelText::Load(folder_).status().message()); }

  std::string folder_;
};

TEST_F(ModelTextTest, EncodesAConversation) {
  Write("tokenizer.json", kTokenizer);
  WriteConfig({{"eos_token", {{"content", "<|end|>"}}}, {"chat_template", kTemplate}});
  auto text = Load();
  EXPECT_THAT(*text->EncodePrompt({{"user", "ab"}}), ElementsAre(6, 3, 8, 7));
  EXPECT_EQ(*text->RenderChat({{"user", "a"}, {"bot", "b"}}, false),
            "<|user|>a<|end|><|bot|>b<|end|>");
  EXPECT_EQ(*text->Decode({7, 3, 8}), "ab");
  EXPECT_EQ(text->vocabulary_size(), 9u);
  EXPECT_THAT(text->stop_token_ids(), ElementsAre(8));
}

// What the template adds after a turn, and no token of the turn itself again.
TEST_F(ModelTextTest, AnObservationFollowsATurn) {
  Write("tokenizer.json", kTokenizer);
  WriteConfig({{"eos_token", {{"content", "<|end|>"}}}, {"chat_template", kTemplate}});
  auto text = Load();
  EXPECT_EQ(*text->RenderContinuation({{"user", "a"}}, {{"user", "b"}}), "<|end|><|user|>b<|end|><|bot|>");
  EXPECT_THAT(*text->EncodeContinuation({{"user", "a"}}, {{"user", "b"}}, /*last=*/8), ElementsAre(6, 1, 8, 7))
      << "the policy wrote the end itself";
  EXPECT_THAT(*text->EncodeContinuation({{"user", "a"}}, {{"user", "b"}}, /*last=*/0), ElementsAre(8, 6, 1, 8, 7))
      << "it did not";
  // The prompt, the turn and what follows it are what the template makes of the whole conversation.
  std::vector<uint32_t> whole = *text->EncodePrompt({{"user", "a"}});
  for (uint32_t id : {3u, 8u}) whole.push_back(id);  // "ab", the end
  const std::vector<uint32_t> shown = *text->EncodeContinuation({{"user", "a"}}, {{"user", "b"}}, 8);
  whole.insert(whole.end(), shown.begin(), shown.end());
  // (This template writes the assistant's role as it is: bot.)
  EXPECT_THAT(*text->EncodePrompt({{"user", "a"}, {"bot", "ab"}, {"user", "b"}}), testing::ElementsAreArray(whole));
}

TEST_F(ModelTextTest, ATemplateThatRewritesWhatCameBeforeIsRefused) {
  Write("tokenizer.json", kTokenizer);
  auto error = [&](const std::string& jinja) {
    WriteConfig({{"chat_template", jinja}});
    return std::string(Load()->RenderContinuation({{"user", "a"}}, {{"user", "b"}}).status().message());
  };
  EXPECT_THAT(error("{{ messages | length }}{% for m in messages %}{{ m.content }}{% endfor %}"),
              HasSubstr("the chat template cannot go on after a turn of the assistant: it changes what stands before the turn, "
                        "from '1a' to '3a"));
  EXPECT_THAT(error("{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}{% endif %}{% endfor %}"),
              HasSubstr("it does not show the turn"));
  EXPECT_THAT(error("{% for m in messages %}{{ m.content }}{{ m.content }}{% endfor %}"), HasSubstr("it shows the turn twice"));
  EXPECT_THAT(error("{% if messages | length > 1 %}{{ raise_exception('one turn only') }}{% endif %}a"),
              HasSubstr("one turn only"));
}

TEST_F(ModelTextTest, TheEndsOfACallAreReadThoughTheyAreSpecial) {
  nlohmann::json tokenizer = nlohmann::json::parse(kTokenizer);
  for (const char* mark : {"<tool_call>", "</tool_call>"}) {
    nlohmann::json token = tokenizer["added_tokens"][0];
    token["id"] = tokenizer["added_tokens"].size() + 6;
    token["content"] = mark;
    tokenizer["added_tokens"].push_back(token);
  }
  Write("tokenizer.json", tokenizer.dump());
  auto text = Load();
  EXPECT_THAT(*text->Encode("<|user|><tool_call>ab</tool_call>", false), ElementsAre(6, 9, 3, 10));
  EXPECT_EQ(*text->Decode({6, 9, 3, 10, 8}), "<tool_call>ab</tool_call>");
}

TEST_F(ModelTextTest, ToolsGoToTheTemplate) {
  Write("tokenizer.json", kTokenizer);
  WriteConfig({{"chat_template", "{% if tools %}{% for t in tools %}[{{ t.function.name }}]{% endfor %}{% endif %}{{ messages[0].content }}"}});
  auto text = Load();
  EXPECT_EQ(*text->RenderChat({{"user", "a"}}, true, {R"({"function": {"name": "x"}})", R"({"function": {"name": "y"}})"}), "[x][y]a");
  EXPECT_EQ(*text->RenderChat({{"user", "a"}}, true), "a");
  EXPECT_TRUE(*text->ShowsTools());
  EXPECT_THAT(std::string(text->RenderChat({{"user", "a"}}, true, {"[1]"}).status().message()), HasSubstr("no JSON object"));
  WriteConfig({{"chat_template", kTemplate}});
  EXPECT_FALSE(*Load()->ShowsTools());
}

TEST_F(ModelTextTest, MoreOfAMessageGoesToTheTemplateInItsOrder) {
  Write("tokenizer.json", kTokenizer);
  WriteConfig({{"chat_template",
                "{% for m in messages %}{{ m.role }}:{{ m.content }}{% if 'tool_calls' in m %}"
                "{% for c in m.tool_calls %}({{ c.function.name }} {{ c.function.arguments | tojson }}){% endfor %}{% endif %};{% endfor %}"}});
  auto text = Load();
  EXPECT_EQ(*text->RenderChat({{"user", "a"},
                               {"assistant", "", R"({"tool_calls": [{"function": {"name": "f", "arguments": {"z": 1, "a": "b"}}}]})"},
                               {"tool", "c", R"({"name": "f"})"}},
                              false),
            R"(user:a;assistant:(f {"z": 1, "a": "b"});tool:c;)");
  EXPECT_THAT(std::string(text->RenderChat({{"user", "a", "[1]"}}, true).status().message()),
              HasSubstr("the fields of a message are no JSON object: [1]"));
}

TEST_F(ModelTextTest, TakesTheTemplateFileBeforeTheConfig) {
  Write("tokenizer.json", kTokenizer);
  Write("chat_template.jinja", "{{ messages[0].content }}");
  WriteConfig({{"chat_template", kTemplate}});
  EXPECT_EQ(*Load()->RenderChat({{"user", "a"}}, true), "a");
}

TEST_F(ModelTextTest, TakesTheTemplateNamedDefault) {
  Write("tokenizer.json", kTokenizer);
  WriteConfig(
      {{"chat_template",
        {{{"name", "tool_use"}, {"template", "x"}}, {{"name", "default"}, {"template", "y"}}}}});
  EXPECT_EQ(*Load()->RenderChat({{"user", "a"}}, true), "y");
  WriteConfig({{"chat_template", {{{"name", "tool_use"}, {"template", "x"}}}}});
  EXPECT_THAT(LoadError(), HasSubstr("want a text, or a list with a template named default"));
}

TEST_F(ModelTextTest, GathersStopTokens) {
  Write("tokenizer.json", kTokenizer);
  Write("config.json", R"({"eos_token_id": 1})");
  EXPECT_THAT(Load()->stop_token_ids(), ElementsAre(1));
  Write("generation_config.json", R"({"eos_token_id": [7, 2]})");
  WriteConfig({{"eos_token", "<|end|>"}});
  auto text = Load();
  EXPECT_THAT(text->stop_token_ids(), ElementsAre(2, 7, 8));
  EXPECT_EQ(text->eos_token_id(), 8u);
  Write("generation_config.json", R"({"eos_token_id": "</s>"})");
  EXPECT_THAT(LoadError(), HasSubstr("generation_config.json: eos_token_id: want a token id"));
}

TEST_F(ModelTextTest, AFolderWithoutTokenizerKnowsItsStopTokens) {
  Write("config.json", R"({"eos_token_id": 2})");
  auto text = Load();
  EXPECT_FALSE(text->has_tokenizer());
  EXPECT_THAT(text->stop_token_ids(), ElementsAre(2));
  absl::Status status = text->EncodePrompt({{"user", "a"}}).status();
  EXPECT_TRUE(absl::IsFailedPrecondition(status));
  EXPECT_THAT(std::string(status.message()), HasSubstr("has no tokenizer.json: give token ids"));
}

TEST_F(ModelTextTest, SaysWhatIsBroken) {
  EXPECT_TRUE(absl::IsNotFound(ModelText::Load(folder_ + "/absent").status()));
  Write("tokenizer.json", "{\"model\": 3}");
  EXPECT_THAT(LoadError(), HasSubstr(folder_ + "/tokenizer.json: "));
  Write("tokenizer.json", kTokenizer);
  Write("tokenizer_config.json", "{\"a\": }");
  EXPECT_THAT(LoadError(), HasSubstr("tokenizer_config.json: "));
  WriteConfig({{"chat_template", "{% if %}"}});
  EXPECT_THAT(LoadError(), HasSubstr("chat template: "));
  WriteConfig(nlohmann::json::object());
  EXPECT_THAT(std::string(Load()->EncodePrompt({{"user", "a"}}).status().message()),
              HasSubstr("has no chat template"));
}

TEST_F(ModelTextTest, RefusesBadMessages) {
  Write("tokenizer.json", kTokenizer);
  WriteConfig({{"chat_template", "{{ raise_exception('roles must alternate') }}"}});
  auto text = Load();
  EXPECT_THAT(std::string(text->EncodePrompt({{"user", "a"}}).status().message()),
              HasSubstr("roles must alternate"));
  EXPECT_THAT(std::string(text->EncodePrompt({{"user", "\xff"}}).status().message()),
              HasSubstr("not UTF-8"));
  std::string huge(ModelText::kMaxTextBytes + 1, 'a');
  EXPECT_THAT(std::string(text->Encode(huge, false).status().message()),
              HasSubstr("16777217 bytes, at most 16777216 are tokenised"));
}

TEST_F(ModelTextTest, ComparesVocabularies) {
  Write("tokenizer.json", kTokenizer);
  auto text = Load();
  EXPECT_TRUE(CheckVocabulary(*text, 9).ok());
  EXPECT_THAT(std::string(CheckVocabulary(*text, 8).message()),
              HasSubstr("the tokenizer's largest id is 8, but the model has rows for ids below 8"));
}

}  // namespace
}  // namespace rein::text

#include "rollout/sampling/stop_check.h"

#include <filesystem>
#include <fstream>
#include <set>

#include <gmock/gmock.h>
#include <google/protobuf/text_format.h>
#include <gtest/gtest.h>

#include "rollout/sampling/draw_key.h"

namespace rein::rollout {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

// Ids: a 0, b 1, é 2 and 3, <end> 4.
std::unique_ptr<text::ModelText> Text(bool tokenizer = true) {
  std::string folder = testing::TempDir() + "/stop_check_" + std::to_string(tokenizer);
  std::filesystem::create_directories(folder);
  std::ofstream(folder + "/config.json") << R"({"eos_token_id": 4})";
  if (tokenizer) {
    std::ofstream(folder + "/tokenizer.json") << R"({
      "version": "1.0", "pre_tokenizer": null,
      "added_tokens": [{"id": 4, "content": "<end>", "single_word": false, "lstrip": false,
                        "rstrip": false, "normalized": false, "special": true}],
      "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true,
                  "use_regex": true},
      "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "Ã": 2, "©": 3}, "merges": []}})";
  }
  return *text::ModelText::Load(folder);
}

// How many tokens until the end, and why.
std::pair<int, FinishReason> EndOf(const SamplingSettings& settings, std::vector<uint32_t> tokens,
                                   uint32_t max_length = 100) {
  auto text = Text();
  StopCheck check = *StopCheck::Create(settings, *text, /*prompt_tokens=*/10, max_length);
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (auto reason = *check.Append(tokens[i])) return {static_cast<int>(i) + 1, *reason};
  }
  return {-1, FinishReason::kAbort};
}

TEST(StopCheckTest, EndsAtStopTokens) {
  EXPECT_EQ(EndOf({}, {0, 1, 4, 0}), std::make_pair(3, FinishReason::kStop)) << "the model's own";
  EXPECT_EQ(EndOf({.stop_token_ids = {3, 1}}, {0, 4, 1}), std::make_pair(3, FinishReason::kStop));
  EXPECT_EQ(EndOf({.max_tokens = 2}, {0, 4}), std::make_pair(2, FinishReason::kStop));
}

TEST(StopCheckTest, EndsAtTheLimit) {
  EXPECT_EQ(EndOf({.max_tokens = 2}, {0, 1, 1}), std::make_pair(2, FinishReason::kLength));
  EXPECT_EQ(EndOf({.max_tokens = 50}, {0, 1, 1, 1}, /*max_length=*/13),
            std::make_pair(3, FinishReason::kLength));
  EXPECT_EQ(EndOf({.max_tokens = 3, .stop_strings = {"a"}, .ignore_eos = true}, {4, 0, 4, 0}),
            std::make_pair(3, FinishReason::kLength));
}

TEST(StopCheckTest, EndsAtStopStrings) {
  EXPECT_EQ(EndOf({.stop_strings = {"ba", "zz"}}, {0, 1, 0, 0}),
            std::make_pair(3, FinishReason::kStop));
  EXPECT_EQ(EndOf({.stop_strings = {"é"}}, {0, 2, 3, 0}), std::make_pair(3, FinishReason::kStop));
  EXPECT_EQ(EndOf({.stop_strings = {"ab"}}, {0, 2, 3, 0, 1}),
            std::make_pair(5, FinishReason::kStop));
  EXPECT_EQ(EndOf({.stop_strings = {"<end>"}}, {0, 4}), std::make_pair(2, FinishReason::kStop));
}

TEST(StopCheckTest, MinTokensBansStopTokens) {
  auto text = Text();
  StopCheck check = *StopCheck::Create({.min_tokens = 2, .stop_strings = {"a"}}, *text, 1, 100);
  EXPECT_THAT(check.banned(0), ElementsAre(4));
  EXPECT_THAT(check.banned(1), ElementsAre(4));
  EXPECT_THAT(check.banned(2), IsEmpty());
  EXPECT_EQ(*check.Append(0), std::nullopt) << "too early for a stop string";
  EXPECT_EQ(*check.Append(1), std::nullopt);
}

TEST(StopCheckTest, SaysWhatIsWrong) {
  auto text = Text();
  EXPECT_THAT(std::string(StopCheck::Create({}, *text, 100, 100).status().message()),
              HasSubstr("the prompt has 100 tokens, want at most 99: the model takes 100"));
  EXPECT_THAT(std::string(StopCheck::Create({}, *text, 0, 100).status().message()),
              HasSubstr("the prompt has no token"));
  absl::Status status =
      StopCheck::Create({.stop_strings = {"a"}}, *Text(/*tokenizer=*/false), 1, 100).status();
  EXPECT_TRUE(absl::IsFailedPrecondition(status));
  EXPECT_THAT(std::string(status.message()), HasSubstr("stop strings need the tokenizer"));
}

absl::StatusOr<SamplingSettings> Settings(const std::string& text) {
  v1::SamplingParams params;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &params)) << text;
  return MakeSettings(params);
}

TEST(MakeSettingsTest, FillsDefaultsIn) {
  SamplingSettings settings = *Settings("");
  EXPECT_EQ(settings.temperature, 1.0);
  EXPECT_EQ(settings.max_tokens, 16u);
  settings = *Settings(
      "temperature: 0 top_k: 5 top_p: 0.5 min_p: 0.1 max_tokens: 7 min_tokens: 2 "
      "stop_token_ids: 3 stop_strings: 'x' ignore_eos: true seed: 9");
  EXPECT_EQ(settings.temperature, 0.0);
  EXPECT_EQ(settings.seed, 9u);
  EXPECT_THAT(settings.stop_strings, ElementsAre("x"));
}

TEST(MakeSettingsTest, NamesEveryProblem) {
  std::string error(Settings("temperature: -1 top_p: 0 min_p: 1 max_tokens: 0 min_tokens: 3 "
                             "stop_strings: ''")
                        .status()
                        .message());
  EXPECT_THAT(error, HasSubstr("temperature is -1, want 0 (greedy) or 0.001 to 100"));
  EXPECT_THAT(error, HasSubstr("top_p is 0, want above 0 and at most 1"));
  EXPECT_THAT(error, HasSubstr("min_p is 1, want"));
  EXPECT_THAT(error, HasSubstr("max_tokens is 0, want at least 1"));
  EXPECT_THAT(error, HasSubstr("min_tokens is 3, want at most max_tokens"));
  EXPECT_THAT(error, HasSubstr("a stop string has 0 bytes"));
  error = std::string(Settings("repetition_penalty: 0 presence_penalty: 101 frequency_penalty: nan").status().message());
  EXPECT_THAT(error, HasSubstr("repetition_penalty is 0, want above 0 and at most 100"));
  EXPECT_THAT(error, HasSubstr("presence_penalty is 101, want -100 to 100"));
  EXPECT_THAT(error, HasSubstr("frequency_penalty is nan, want"));
  EXPECT_THAT(std::string(Settings("temperature: nan").status().message()),
              HasSubstr("temperature"));
}

TEST(DrawKeyTest, EveryPartCounts) {
  std::set<uint64_t> keys = {PhiloxKey({})};
  for (DrawKey key : {DrawKey{.seed = 1}, DrawKey{.data_epoch = 1}, DrawKey{.prompt = 1},
                      DrawKey{.attempt = 1}, DrawKey{.sibling = 1}, DrawKey{.turn = 1}}) {
    keys.insert(PhiloxKey(key));
  }
  EXPECT_EQ(keys.size(), 7u);
}

}  // namespace
}  // namespace rein::rollout

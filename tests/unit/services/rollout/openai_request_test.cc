#include "services/rollout/openai_request.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "services/rollout/openai_error.h"

namespace rein::services {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class OpenAiRequestTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto text = text::ModelText::Load("configs/models/digits");
    ASSERT_TRUE(text.ok()) << text.status();
    text_ = *std::move(text);
  }

  absl::StatusOr<OpenAiRequest> Chat(const std::string& more) {
    return ParseOpenAiRequest(R"j({"messages": [{"role": "user", "content": "max(1,2)"}])j" + more + "}", true, *text_, 7);
  }
  absl::StatusOr<OpenAiRequest> Plain(const std::string& fields) {
    return ParseOpenAiRequest("{" + fields + "}", false, *text_, 7);
  }
  std::string Error(const absl::StatusOr<OpenAiRequest>& request) {
    EXPECT_TRUE(absl::IsInvalidArgument(request.status())) << request.status();
    return std::string(request.status().message());
  }

  // What a client would see, piece by piece.
  std::vector<std::string> Pieces(const std::string& said, std::vector<std::string> stops) {
    ChoiceText choice(*text_, std::move(stops));
    std::vector<std::string> pieces;
    const std::vector<uint32_t> tokens = *text_->Encode(said, false);
    for (uint32_t token : tokens) pieces.push_back(*choice.Append(token));
    pieces.push_back(*choice.Finish());
    return pieces;
  }

  std::unique_ptr<text::ModelText> text_;
};

TEST_F(OpenAiRequestTest, DefaultsAreOpenAis) {
  auto request = Chat("");
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_EQ(request->n, 1);
  EXPECT_EQ(request->sampling.temperature, 1);
  EXPECT_EQ(request->sampling.seed, 7);
  EXPECT_FALSE(request->stream || request->logprobs);
  ASSERT_EQ(request->prompts.size(), 1);
  EXPECT_EQ(request->prompts[0], *text_->EncodePrompt({{"user", "max(1,2)"}}));
  EXPECT_EQ(Plain(R"j("prompt": "max(1)")j")->sampling.max_tokens, 16);
}

TEST_F(OpenAiRequestTest, EveryFieldReachesTheEngine) {
  auto request = Chat(R"j(, "n": 3, "temperature": 0.5, "top_p": 0.9, "top_k": 4, "min_p": 0.1, "max_completion_tokens": 9,
    "stop": ["a", "b"], "seed": 11, "stream": true, "stream_options": {"include_usage": true}, "logprobs": true,
    "ignore_eos": true, "min_tokens": 2, "return_token_ids": true, "model": "m", "user": "ada", "presence_penalty": 0.25,
    "frequency_penalty": -0.5, "repetition_penalty": 1.25, "tools": [])j");
  ASSERT_TRUE(request.ok()) << request.status();
  const rollout::SamplingSettings& sampling = request->sampling;
  EXPECT_EQ(request->n, 3);
  EXPECT_EQ(sampling.temperature, 0.5);
  EXPECT_EQ(sampling.top_p, 0.9);
  EXPECT_EQ(sampling.top_k, 4);
  EXPECT_EQ(sampling.min_p, 0.1);
  EXPECT_EQ(sampling.penalties.presence, 0.25);
  EXPECT_EQ(sampling.penalties.frequency, -0.5);
  EXPECT_EQ(sampling.penalties.repetition, 1.25);
  EXPECT_EQ(sampling.max_tokens, 9);
  EXPECT_EQ(sampling.min_tokens, 2);
  EXPECT_EQ(sampling.seed, 11);
  EXPECT_TRUE(sampling.ignore_eos && request->stream && request->include_usage && request->logprobs && request->return_token_ids);
  EXPECT_THAT(sampling.stop_strings, ElementsAre("a", "b"));
}

TEST_F(OpenAiRequestTest, PromptsAreTextsOrTokens) {
  EXPECT_EQ(Plain(R"j("prompt": "max(1)")j")->prompts[0], *text_->Encode("max(1)", true));
  EXPECT_THAT(Plain(R"j("prompt": [3, 4, 5])j")->prompts, ElementsAre(ElementsAre(3, 4, 5)));
  EXPECT_THAT(Plain(R"j("prompt": [[3], [4, 5]], "n": 2)j")->prompts, ElementsAre(ElementsAre(3), ElementsAre(4, 5)));
  EXPECT_EQ(Plain(R"j("prompt": ["max(1)", "max(2)"])j")->prompts.size(), 2);
}

TEST_F(OpenAiRequestTest, PartsOfTextAreJoined) {
  auto request = ParseOpenAiRequest(
      R"j({"messages": [{"role": "user", "content": [{"type": "text", "text": "max("}, {"type": "text", "text": "1,2)"}]}]})j",
      true, *text_, 7);
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_EQ(request->prompts[0], *text_->EncodePrompt({{"user", "max(1,2)"}}));
}

TEST_F(OpenAiRequestTest, MistakesNameTheField) {
  for (const auto& [fields, wanted] :
       {std::pair<std::string, std::string>{R"j(, "n": 0)j", "n: wants at least 1"},
        {R"j(, "n": 1000)j", "n: wants a whole number up to 128"},
        {R"j(, "temperature": "hot")j", "temperature: wants a number, got \"hot\""},
        {R"j(, "temperature": -1)j", "temperature"},
        {R"j(, "max_tokens": -5)j", "max_tokens: wants a whole number"},
        {R"j(, "stop": [1])j", "stop: wants a text"},
        {R"j(, "seed": 1.5)j", "seed: wants a whole number"},
        {R"j(, "tools": [{"type": "function"}])j", "tools: wants {\"type\": \"function\", \"function\""},
        {R"j(, "tools": [{"type": "function", "function": {"name": "f"}}])j", "tools: the model's chat template does not show tools"},
        {R"j(, "functions": [{}])j", "functions: is not known"},
        {R"j(, "presence_penalty": "much")j", "presence_penalty: wants a number"},
        {R"j(, "repetition_penalty": 0)j", "repetition_penalty is 0, want above 0"},
        {R"j(, "response_format": "text")j", "response_format: is not known"},
        {R"j(, "response_format": {"type": 3})j", "response_format: is not known"},
        {R"j(, "response_format": {"type": "json_object"})j", "response_format: is not known"},
        {R"j(, "logprobs": true, "top_logprobs": 3)j", "top_logprobs: is not known"}}) {
    EXPECT_THAT(Error(Chat(fields)), HasSubstr(wanted)) << fields;
  }
  for (const auto& [fields, wanted] : {std::pair<std::string, std::string>{"", "prompt: wants a text"},
                                       {R"j("prompt": 3)j", "prompt: wants a text"},
                                       {R"j("prompt": [[-1]])j", "prompt: wants token ids"},
                                       {R"j("prompt": "1", "echo": true)j", "echo: is not known"},
                                       {R"j("prompt": "1", "tools": [{}])j", "tools: belongs to /v1/chat/completions"},
                                       {R"j("prompt": "1", "logprobs": 5)j", "logprobs: at most 1"},
                                       {R"j("prompt": [[1],[1],[1]], "n": 100)j", "is more than 128 choices"}}) {
    EXPECT_THAT(Error(Plain(fields)), HasSubstr(wanted)) << fields;
  }
  for (const char* body : {"", "[]", "{", "3"}) {
    EXPECT_THAT(std::string(ParseOpenAiRequest(body, true, *text_, 7).status().message()), HasSubstr("wants a JSON object"));
  }
  EXPECT_THAT(Error(ParseOpenAiRequest(R"j({"messages": []})j", true, *text_, 7)), HasSubstr("messages: wants a list"));
  EXPECT_THAT(Error(ParseOpenAiRequest(R"j({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]})j", true, *text_, 7)),
              HasSubstr("parts of type text"));
}

TEST_F(OpenAiRequestTest, ABodyThatNestsDeepIsRefused) {
  const std::string deep = std::string(400000, '[') + std::string(400000, ']');
  EXPECT_THAT(Error(Chat(R"j(, "temperature": )j" + deep)), HasSubstr("JSON nested 400001 deep, at most 64"));
}

TEST_F(OpenAiRequestTest, TextComesAsItIsDrawn) {
  EXPECT_THAT(Pieces("123", {}), ElementsAre("1", "2", "3", ""));
}

TEST_F(OpenAiRequestTest, AStopStringIsNeverShownNotEvenItsBeginning) {
  EXPECT_THAT(Pieces("12345", {"34"}), ElementsAre("1", "2", "", "", "", ""));
  EXPECT_THAT(Pieces("1235", {"34"}), ElementsAre("1", "2", "", "35", ""));
  EXPECT_THAT(Pieces("123", {"34"}), ElementsAre("1", "2", "", "3"));
  EXPECT_THAT(Pieces("11112", {"112"}), ElementsAre("", "", "1", "1", "", ""));
  EXPECT_THAT(Pieces("123", {"1"}), ElementsAre("", "", "", ""));
}

TEST_F(OpenAiRequestTest, ErrorsAreAsClientsReadThem) {
  auto error = nlohmann::json::parse(OpenAiError(absl::InvalidArgumentError("n: wants at least 1")))["error"];
  EXPECT_EQ(error["type"], "invalid_request_error");
  EXPECT_EQ(error["param"], "n");
  EXPECT_EQ(nlohmann::json::parse(OpenAiError(absl::NotFoundError("x")))["error"]["code"], "model_not_found");
}

}  // namespace
}  // namespace rein::services

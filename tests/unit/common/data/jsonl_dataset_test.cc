#include "common/data/jsonl_dataset.h"

#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace rein::data {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using text::ChatMessage;

std::string Write(const std::string& content) {
  std::string path = testing::TempDir() + "/" +
                     testing::UnitTest::GetInstance()->current_test_info()->name() + ".jsonl";
  std::ofstream(path) << content;
  return path;
}

std::unique_ptr<JsonlDataset> Open(JsonlOptions options) {
  auto dataset = JsonlDataset::Open(std::move(options));
  EXPECT_TRUE(dataset.ok()) << dataset.status();
  return dataset.ok() ? *std::move(dataset) : nullptr;
}

std::string OpenError(JsonlOptions options) {
  absl::Status status = JsonlDataset::Open(std::move(options)).status();
  EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
  return std::string(status.message());
}

TEST(JsonlDatasetTest, ReadsTextAndMessages) {
  auto dataset = Open({.path = Write("{\"prompt\": \"1+1\", \"answer\": 2}\r\n\n"
                                     "{\"prompt\": [{\"role\": \"system\", \"content\": \"s\"}, "
                                     "{\"role\": \"user\", \"content\": [{\"type\": \"text\", "
                                     "\"text\": \"u\"}]}], \"answer\": \"x\"}")});
  ASSERT_EQ(dataset->size(), 2u);
  PromptRow first = *dataset->Row(0);
  EXPECT_TRUE(first.is_text);
  EXPECT_THAT(first.messages, ElementsAre(ChatMessage{"user", "1+1"}));
  EXPECT_EQ(first.answer, "2");
  PromptRow second = *dataset->Row(1);
  EXPECT_FALSE(second.is_text);
  EXPECT_THAT(second.messages, ElementsAre(ChatMessage{"system", "s"}, ChatMessage{"user", "u"}));
  EXPECT_THAT(second.columns_json, HasSubstr("\"answer\": \"x\""));
  EXPECT_TRUE(absl::IsOutOfRange(dataset->Row(2).status()));
}

TEST(JsonlDatasetTest, ReadsShareGptAndAlpaca) {
  auto sharegpt = Open({.path = Write(R"({"conversations": [{"from": "system", "value": "s"}, )"
                                      R"({"from": "human", "value": "u"}, {"from": "gpt", "value": "a"}]})"),
                        .prompt_column = "conversations"});
  ASSERT_NE(sharegpt, nullptr);
  EXPECT_THAT(sharegpt->Row(0)->messages, ElementsAre(ChatMessage{"system", "s"}, ChatMessage{"user", "u"}));
  EXPECT_EQ(sharegpt->Row(0)->answer, "a");
  auto alpaca = Open({.path = Write("{\"instruction\": \"add\", \"input\": \"1 2\", \"output\": \"3\"}\n"
                                    "{\"instruction\": \"greet\", \"input\": \"\", \"output\": \"hi\"}\n"),
                      .prompt_column = "instruction",
                      .answer_column = "output",
                      .context_column = "input"});
  ASSERT_NE(alpaca, nullptr);
  EXPECT_EQ(alpaca->Row(0)->messages[0].content, "add\n\n1 2");
  EXPECT_EQ(alpaca->Row(1)->messages[0].content, "greet");
}

TEST(JsonlDatasetTest, ReadsCallsToolsAndWeights) {
  auto dataset = Open({.path = Write(
                           R"({"prompt": [{"role": "user", "content": "u"}, {"role": "assistant", "content": null, "weight": 0,)"
                           R"( "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{\"z\": 1, \"a\": 2}"}}]},)"
                           R"( {"role": "tool", "tool_call_id": "1", "content": "3"}, {"role": "assistant", "content": "three", "weight": 0.5}],)"
                           R"( "tools": "[{\"type\": \"function\", \"function\": {\"name\": \"f\", \"description\": \"d\"}}]"})")});
  PromptRow row = *dataset->Row(0);
  EXPECT_THAT(row.messages,
              ElementsAre(ChatMessage{"user", "u"},
                          ChatMessage{"assistant", "",
                                      R"({"tool_calls":[{"id":"1","type":"function","function":{"name":"f","arguments":{"z":1,"a":2}}}]})",
                                      0},
                          ChatMessage{"tool", "3", R"({"tool_call_id":"1"})"}));
  EXPECT_EQ(row.answer, "three");
  EXPECT_EQ(row.answer_weight, 0.5);
  EXPECT_THAT(row.tools, ElementsAre(R"({"type":"function","function":{"name":"f","description":"d"}})"));
}

TEST(JsonlDatasetTest, RefusesWrongCallsToolsAndWeights) {
  auto error = [](const std::string& message, const std::string& more = "") {
    return OpenError({.path = Write(R"({"prompt": [{"role": "user", "content": "u"}, )" + message + "]" + more + "}")});
  };
  EXPECT_THAT(error(R"({"role": "assistant", "content": "x", "weight": -1})"),
              HasSubstr("message 2: weight is -1, want a number from 0 to 1e6"));
  EXPECT_THAT(error(R"({"role": "assistant", "tool_calls": {}})"), HasSubstr("message 2: tool_calls: want a list, got object"));
  EXPECT_THAT(error(R"({"role": "assistant", "tool_calls": [{"type": "function"}]})"),
              HasSubstr(R"(message 2: tool_calls: want {"function": {"name": ..., "arguments": ...}}, got {"type":"function"})"));
  EXPECT_THAT(error(R"({"role": "assistant", "tool_calls": [{"name": "f", "arguments": "[1]"}]})"),
              HasSubstr("message 2: arguments of a call: want a JSON object, or one in a text, got \"[1]\""));
  EXPECT_THAT(error(R"({"role": "assistant", "content": null})"), HasSubstr("message 2: content: want text, got null"));
  EXPECT_THAT(error(R"({"role": "user", "content": "v"})", R"(, "tools": [{"type": "function"}])"),
              HasSubstr("column \"tools\": want schemas"));
  EXPECT_THAT(error(R"({"role": "user", "content": "v"})", R"(, "tools": {})"),
              HasSubstr("column \"tools\": want a list of schemas, got object"));
}

TEST(JsonlDatasetTest, RefusesMessagesOutOfOrder) {
  auto error = [](const std::string& messages) { return OpenError({.path = Write("{\"prompt\": [" + messages + "]}")}); };
  EXPECT_THAT(error(R"({"role": "user", "content": "u"}, {"role": "system", "content": "s"})"),
              HasSubstr("message 2: a system message, which wants to be the first"));
  EXPECT_THAT(error(R"({"role": "user", "content": "u"}, {"role": "tool", "content": "3"})"),
              HasSubstr("message 2: the result of a tool, which wants a turn of the assistant before it, not a message of user"));
  EXPECT_THAT(error(R"({"role": "tool", "content": "3"})"), HasSubstr("not the beginning"));
}

TEST(JsonlDatasetTest, FindsNestedColumns) {
  std::string path =
      Write(R"({"a": {"q": "nested", "b.c": 1}, "a.q": "flat", "r": {"gold": -1.5}})");
  EXPECT_EQ((*Open({.path = path, .prompt_column = "a.q", .answer_column = "r.gold"}))
                .Row(0)
                ->messages[0]
                .content,
            "flat");
  EXPECT_EQ(Open({.path = path, .prompt_column = "a.q", .answer_column = "r.gold"})->Row(0)->answer,
            "-1.5");
  path = Write(R"({"a": {"q": "nested"}})");
  EXPECT_EQ(Open({.path = path, .prompt_column = "a.q"})->Row(0)->messages[0].content, "nested");
  EXPECT_THAT(OpenError({.path = path, .prompt_column = "a.x"}),
              HasSubstr(":1: no column \"a.x\"; it has a"));
}

TEST(JsonlDatasetTest, SplitsAConversationThatEndsWithTheAnswer) {
  auto dataset = Open({.path = Write(R"({"messages": [{"role": "user", "content": "u"}, )"
                                     R"({"role": "assistant", "content": "a"}]})"),
                       .prompt_column = "messages",
                       .answer_required = true});
  PromptRow row = *dataset->Row(0);
  EXPECT_THAT(row.messages, ElementsAre(ChatMessage{"user", "u"}));
  EXPECT_EQ(row.answer, "a");
}

TEST(JsonlDatasetTest, ReportsBadLinesWithTheirPlace) {
  std::string path = Write(
      "{\"prompt\": \"x\"}\n{\"prompt\": }\n\n[1]\n{\"question\": \"q\"}\n"
      "{\"prompt\": 3}\n{\"prompt\": []}\n{\"prompt\": [{\"role\": \"user\"}]}\n"
      "{\"prompt\": \"x\", \"answer\": [1]}\n{\"prompt\": \"\xff\"}\n");
  std::string error = OpenError({.path = path});
  EXPECT_THAT(error, HasSubstr(path + " has 8 bad lines\n"));
  EXPECT_THAT(error, HasSubstr(path + ":2: parse error at column 12: "));
  EXPECT_THAT(error, HasSubstr(path + ":4: want a JSON object, got array\n"));
  EXPECT_THAT(error, HasSubstr(path + ":5: no column \"prompt\"; it has question\n"));
  EXPECT_THAT(error, HasSubstr(path + ":6: column \"prompt\": want a text or a list of {role, "
                                      "content}, got number\n"));
  EXPECT_THAT(error, HasSubstr(":7: column \"prompt\": want a text or a list of {role, content}, "
                               "got an empty list\n"));
  EXPECT_THAT(error, HasSubstr(":8: column \"prompt\", message 1: want {role, content}\n"));
  EXPECT_THAT(error, HasSubstr(":9: column \"answer\", message 1: want {role, content}\n"));
  EXPECT_THAT(error, HasSubstr("UTF-8"));
}

// TRL writes completions and pairs as conversations.
TEST(JsonlDatasetTest, AnAnswerMayBeAConversationThatEndsWithIt) {
  const std::string path = Write(
      "{\"prompt\": [{\"role\": \"user\", \"content\": \"q\"}], \"completion\": [{\"role\": \"assistant\", "
      "\"content\": \"a\"}]}\n");
  auto dataset = JsonlDataset::Open({.path = path, .answer_column = "completion", .answer_required = true});
  ASSERT_TRUE(dataset.ok()) << dataset.status();
  EXPECT_EQ((*dataset)->Row(0)->answer, "a");
  const std::string wrong = Write("{\"prompt\": \"q\", \"answer\": [{\"role\": \"user\", \"content\": \"a\"}]}\n");
  EXPECT_THAT(OpenError({.path = wrong}), HasSubstr("ends with a message of user, want the assistant's"));
}

// Files that pyarrow wrote (tests/golden/parquet/README.md): verl's columns, two rows in a row group.
TEST(JsonlDatasetTest, ParquetRowsAreLines) {
  for (const char* codec : {"snappy", "zstd", "gzip", "lz4"}) {
    const std::string path = std::string("tests/golden/parquet/verl_") + codec + ".parquet";
    auto dataset = JsonlDataset::Open({.path = path, .answer_column = "reward_model.ground_truth",
                                       .answer_required = true});
    ASSERT_TRUE(dataset.ok()) << dataset.status();
    EXPECT_EQ((*dataset)->size(), 5u);
    const PromptRow row = *(*dataset)->Row(3);
    EXPECT_THAT(row.messages, ElementsAre(text::ChatMessage{"user", "max(3,2)"}));
    EXPECT_EQ(row.answer, "3");
    EXPECT_THAT(row.columns_json, HasSubstr("\"extra_info\":{\"index\":3,\"score\":0.75}"));
  }
  EXPECT_THAT(OpenError({.path = "tests/golden/parquet/verl_zstd.parquet", .prompt_column = "question"}),
              HasSubstr(".parquet:1: no column \"question\"; it has data_source, "));
  EXPECT_TRUE(absl::IsNotFound(JsonlDataset::Open({.path = "absent.parquet"}).status()));
  const std::string wrong = testing::TempDir() + "/wrong.parquet";
  std::ofstream(wrong) << "{\"prompt\": \"x\"}\n";
  EXPECT_THAT(OpenError({.path = wrong}), HasSubstr("wrong.parquet: "));
}

TEST(JsonlDatasetTest, ShowsTenBadLinesAndCountsAll) {
  std::string content;
  for (int i = 0; i < 1000; ++i) content += "x\n";
  std::string error = OpenError({.path = Write(content)});
  EXPECT_THAT(error, HasSubstr("has 1000 bad lines; the first ten\n"));
  EXPECT_THAT(error, HasSubstr(":10: "));
  EXPECT_THAT(error, Not(HasSubstr(":11: ")));
}

TEST(JsonlDatasetTest, AnswersMayBeRequired) {
  std::string path = Write(R"({"prompt": "x"})");
  EXPECT_FALSE(Open({.path = path})->Row(0)->has_answer);
  EXPECT_THAT(OpenError({.path = path, .answer_required = true}),
              HasSubstr(":1: no column \"answer\"; it has prompt"));
}

TEST(JsonlDatasetTest, AnEmptyFileIsAnError) {
  EXPECT_THAT(OpenError({.path = Write("")}), HasSubstr("is empty: want one JSON object per line"));
  EXPECT_THAT(OpenError({.path = Write("\n \n")}), HasSubstr("is empty"));
  absl::Status status = JsonlDataset::Open({.path = "/no/such.jsonl"}).status();
  EXPECT_TRUE(absl::IsNotFound(status));
  EXPECT_THAT(std::string(status.message()), HasSubstr("/no/such.jsonl"));
}

TEST(JsonlDatasetTest, RefusesHostileLines) {
  std::string deep = "{\"prompt\": " + std::string(100'000, '[') + "\n";
  EXPECT_THAT(OpenError({.path = Write(deep)}), HasSubstr(":1: JSON nested 100001 deep"));
  std::string long_line = "{\"prompt\": \"" + std::string(17 << 20, 'a') + "\"}\n";
  EXPECT_THAT(OpenError({.path = Write(long_line)}), HasSubstr("at most 16777216 are read"));
}

TEST(JsonlDatasetTest, LimitAndDigest) {
  std::string path = Write("{\"prompt\": \"a\"}\n{\"prompt\": \"b\"}\nbroken\n");
  auto dataset = Open({.path = path, .limit = 2});
  EXPECT_EQ(dataset->size(), 2u);
  uint64_t digest = dataset->digest();
  EXPECT_EQ(Open({.path = path, .limit = 1})->digest(), digest);
  EXPECT_NE(Open({.path = Write("{\"prompt\": \"a\"}\n")})->digest(), digest);
}

}  // namespace
}  // namespace rein::data

#include "common/data/token_lines.h"

#include <filesystem>
#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace rein::data {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class TokenLinesTest : public testing::Test {
 protected:
  TokenLinesTest() {
    std::filesystem::create_directories(folder_);
    std::ofstream(folder_ + "/tokenizer.json")
        << R"({"version": "1.0", "added_tokens": [], "pre_tokenizer": null, "decoder": null,
               "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "?": 2}, "merges": []}})";
    std::ofstream(folder_ + "/chat_template.jinja")
        << "{% for m in messages %}{{ m.content }}{% endfor %}{{ '?' if add_generation_prompt }}";
    text_ = *text::ModelText::Load(folder_);
  }

  absl::StatusOr<std::vector<TokenLine>> Read(const std::string& content, bool complete = false) {
    std::ofstream(path_) << content;
    return ReadTokenLines(path_, *text_, complete);
  }

  const std::string folder_ = testing::TempDir() + "/token_lines";
  const std::string path_ = folder_ + "/in.jsonl";
  std::unique_ptr<text::ModelText> text_;
};

TEST_F(TokenLinesTest, ReadsIdsMessagesAndText) {
  const std::string content = R"({"id": "x", "tokens": [5, 6], "max_tokens": 3}

{"id": 7, "messages": [{"role": "user", "content": "ab"}]}
{"prompt": "ba"})";
  auto lines = *Read(content);
  ASSERT_EQ(lines.size(), 3u);
  EXPECT_THAT(lines[0].tokens, ElementsAre(5, 6));
  EXPECT_EQ(lines[0].fields["max_tokens"], 3);
  EXPECT_EQ(lines[0].id, "x");
  EXPECT_THAT(lines[1].tokens, ElementsAre(0, 1, 2));
  EXPECT_EQ(lines[1].id, 7);
  EXPECT_THAT(lines[2].tokens, ElementsAre(1, 0));
  EXPECT_EQ(lines[2].id, 4) << "the line's number";
  EXPECT_THAT((*Read(content, /*complete=*/true))[1].tokens, ElementsAre(0, 1));
}

TEST_F(TokenLinesTest, ReportsBadLines) {
  std::string error(Read("{\"tokens\": [1, -2]}\n{\"tokens\": \"1\"}\n{}\n[]\n{\"tokens\": []}\n"
                         "{\"messages\": [{}]}\nx\n{\"tokens\": [1]}")
                        .status()
                        .message());
  EXPECT_THAT(error, HasSubstr("in.jsonl has 7 bad lines\n"));
  EXPECT_THAT(error, HasSubstr(":1: tokens: want a list of token ids, found -2\n"));
  EXPECT_THAT(error, HasSubstr(":2: tokens: want a list of token ids, found \"1\"\n"));
  EXPECT_THAT(error, HasSubstr(":3: want \"tokens\": [ids], \"messages\""));
  EXPECT_THAT(error, HasSubstr(":4: want a JSON object, got array\n"));
  EXPECT_THAT(error, HasSubstr(":5: tokens: want at least one id\n"));
  EXPECT_THAT(error, HasSubstr(":6: column \"messages\", message 1: want {role, content}\n"));
  EXPECT_THAT(std::string(Read("\n").status().message()), HasSubstr("is empty"));
}

}  // namespace
}  // namespace rein::data

// `rein-rollout generate` and `rein-reference score`, as a user calls them, on the golden models.

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "services/reference/models_command.h"
#include "services/reference/score_command.h"
#include "services/rollout/generate_command.h"
#include "tests/golden/golden_folders.h"

namespace rein::services {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

class OneShotTest : public testing::TestWithParam<std::string> {
 protected:
  OneShotTest() : folder_(testing::TempDir() + "/one_shot_" + GetParam()) {
    std::filesystem::create_directories(folder_);
  }

  // Runs a command on these lines; its output lines, or what it said on standard error.
  std::vector<json> Run(int (*command)(int, char**), const std::vector<std::string>& lines,
                        std::vector<std::string> flags, int wanted_code = 0) {
    std::ofstream in(folder_ + "/in.jsonl");
    for (const std::string& line : lines) in << line << "\n";
    in.close();
    std::vector<std::string> words = {"command",
                                      "--model",
                                      model_,
                                      "--input",
                                      folder_ + "/in.jsonl",
                                      "--output",
                                      folder_ + "/out.jsonl"};
    words.insert(words.end(), flags.begin(), flags.end());
    std::vector<char*> argv;
    for (std::string& word : words) argv.push_back(word.data());
    testing::internal::CaptureStderr();
    int code = command(static_cast<int>(argv.size()), argv.data());
    error_ = testing::internal::GetCapturedStderr();
    EXPECT_EQ(code, wanted_code) << error_;
    std::vector<json> out;
    if (code != 0) return out;
    std::ifstream file(folder_ + "/out.jsonl");
    for (std::string line; std::getline(file, line);) out.push_back(json::parse(line));
    return out;
  }

  const std::string folder_;
  std::string model_ = "tests/golden/models/" + GetParam();
  std::string error_;
};

TEST_P(OneShotTest, ScoresAreThoseOfTransformers) {
  json golden = json::parse(std::ifstream(model_ + "/golden.json"));
  std::vector<std::string> lines;
  for (const json& row : golden["tokens"])
    lines.push_back(json{{"id", lines.size()}, {"tokens", row}}.dump());
  std::vector<json> scored = Run(ScoreCommand, lines, {"--dtype", "float32"});
  ASSERT_EQ(scored.size(), lines.size());
  for (size_t r = 0; r < scored.size(); ++r) {
    const json& tokens = golden["tokens"][r];
    const auto logits = golden["logits"][r].get<std::vector<double>>();  // [tokens, vocabulary]
    const size_t vocabulary = logits.size() / tokens.size();
    EXPECT_EQ(scored[r]["id"], r);
    EXPECT_EQ(scored[r]["tokens"], tokens);
    ASSERT_EQ(scored[r]["logprobs"].size(), tokens.size());
    EXPECT_TRUE(scored[r]["logprobs"][0].is_null());
    for (size_t i = 0; i + 1 < tokens.size(); ++i) {
      const double* row = logits.data() + i * vocabulary;
      double sum = 0;
      for (size_t v = 0; v < vocabulary; ++v) sum += std::exp(row[v]);
      EXPECT_NEAR(scored[r]["logprobs"][i + 1].get<double>(),
                  row[tokens[i + 1].get<size_t>()] - std::log(sum), 1e-4);
    }
  }
}

TEST_P(OneShotTest, GreedyTakesTheLikeliestAndAgreesWithScore) {
  std::vector<json> generated = Run(
      GenerateCommand, {R"({"id": "a", "tokens": [1, 2, 3]})", R"({"id": "b", "tokens": [9, 8]})"},
      {"--temperature", "0", "--max-tokens", "9", "--ignore-eos", "--dtype", "float32"});
  ASSERT_EQ(generated.size(), 2u);
  std::vector<std::string> lines;
  for (const json& line : generated) {
    EXPECT_EQ(line["finish_reason"], "length");
    json whole = line["prompt_tokens"];
    for (const json& token : line["tokens"]) whole.push_back(token);
    lines.push_back(json{{"id", line["id"]}, {"tokens", whole}}.dump());
  }
  std::vector<json> scored = Run(ScoreCommand, lines, {});
  // A recurrence in chunks and one token at a time round differently.
  const double tolerance = GetParam() == "qwen3_next" ? 1e-4 : 1e-5;
  for (size_t r = 0; r < 2; ++r) {
    const size_t prompt = generated[r]["prompt_tokens"].size();
    ASSERT_EQ(generated[r]["logprobs"].size(), 9u);
    for (size_t i = 0; i < 9; ++i) {
      EXPECT_NEAR(generated[r]["logprobs"][i].get<double>(),
                  scored[r]["logprobs"][prompt + i].get<double>(), tolerance);
    }
  }
}

TEST_P(OneShotTest, LinesMayHaveSettingsOfTheirOwn) {
  std::vector<json> out = Run(GenerateCommand,
                              {R"({"tokens": [1], "max_tokens": 2, "n": 3})",
                               R"({"tokens": [1], "temperature": 0, "stop_token_ids": []})"},
                              {"--max-tokens", "4", "--ignore-eos", "--seed", "3"});
  ASSERT_EQ(out.size(), 4u);
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(out[i]["id"], 1);
    EXPECT_EQ(out[i]["sibling"], i);
    EXPECT_EQ(out[i]["tokens"].size(), 2u);
  }
  EXPECT_FALSE(out[3].contains("sibling"));
  EXPECT_EQ(out[3]["tokens"].size(), 4u);
}

TEST_P(OneShotTest, MistakesNameTheLine) {
  auto error = [&](int (*command)(int, char**), const std::string& line,
                   std::vector<std::string> flags = {}) {
    Run(command, {R"({"tokens": [1]})", line}, flags, /*wanted_code=*/3);
    return error_;
  };
  EXPECT_THAT(error(GenerateCommand, R"({"tokens": [1, 100000]})"),
              HasSubstr("in.jsonl:2: prompt token 1 is 100000, want an id below"));
  EXPECT_THAT(error(GenerateCommand, R"({"tokens": [1], "temperature": "hot"})"),
              HasSubstr("in.jsonl:2: temperature: want a number, found \"hot\""));
  EXPECT_THAT(error(GenerateCommand, R"({"tokens": [1], "n": 0})"),
              HasSubstr("n: want at least 1"));
  EXPECT_THAT(error(GenerateCommand, R"({"messages": [{"role": "user", "content": "x"}]})"),
              HasSubstr("has no tokenizer.json: give token ids instead of text"));
  EXPECT_THAT(error(GenerateCommand, R"({"tokens": [1]})", {"--dtype", "bfloat16"}),
              HasSubstr("a CPU computes in float32 only"));
  json tokens = std::vector<int>(100'000, 1);
  EXPECT_THAT(error(GenerateCommand, json{{"tokens", tokens}}.dump()),
              HasSubstr("the prompt has 100000 tokens, want at most"));
  EXPECT_THAT(error(ScoreCommand, json{{"tokens", tokens}}.dump()),
              HasSubstr("in.jsonl:2: 100000 tokens, want 1 to"));
  EXPECT_THAT(error(ScoreCommand, R"({"tokens": []})"), HasSubstr("tokens: want at least one id"));
  model_ = "/no/such/model";
  EXPECT_THAT(error(ScoreCommand, R"({"tokens": [1]})"), HasSubstr("/no/such/model"));
}

TEST(ModelsCommandTest, PrintsReportsAndTellsDifferencesByItsExitCode) {
  auto run = [](std::vector<std::string> words) {
    words.insert(words.begin(), "models");
    std::vector<char*> argv;
    for (std::string& word : words) argv.push_back(word.data());
    testing::internal::CaptureStdout();
    testing::internal::CaptureStderr();
    const int code = ModelsCommand(static_cast<int>(argv.size()), argv.data());
    return std::pair(code, testing::internal::GetCapturedStdout() + testing::internal::GetCapturedStderr());
  };
  const std::string llama = "tests/golden/models/llama", biased = "tests/golden/models/llama_biased";
  EXPECT_GT(json::parse(run({"list"}).second).size(), 20u);
  EXPECT_EQ(json::parse(run({"inspect", llama}).second)["structure"]["layers"], 2);
  EXPECT_EQ(run({"verify", llama}).first, 0);
  EXPECT_EQ(run({"diff", llama, llama}).first, 0);
  EXPECT_EQ(run({"diff", llama, biased}).first, 1);
  EXPECT_EQ(run({"inspect", "/no/such/folder"}).first, 3);
  EXPECT_EQ(run({"inspect"}).first, 2);
}

INSTANTIATE_TEST_SUITE_P(Families, OneShotTest, testing::ValuesIn(GoldenFolders()),
                         [](const auto& i) { return i.param; });

}  // namespace
}  // namespace rein::services

#include "services/controller/cut_prompts.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "services/controller/prompt_length.h"

namespace rein::services {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

LearnedText Text() {
  return {.token_ids = {10, 11, 12, 13, 14, 15},
          .prompt_tokens = 3,
          .loss_mask = {0, 0, 0, 1, 0, 1},
          .target_rewards = {0.5, 2}};
}

TEST(CutPromptsTest, WhatFitsStays) {
  for (v1::Truncation side : {v1::TRUNCATION_LEFT, v1::TRUNCATION_RIGHT}) {
    for (const LengthLimits& limits : {LengthLimits{}, LengthLimits{.prompt = 3, .text = 6}}) {
      const LearnedText text = CutText(Text(), limits, side);
      EXPECT_EQ(text.token_ids, Text().token_ids);
      EXPECT_EQ(text.cut_tokens, 0);
    }
  }
}

TEST(CutPromptsTest, LeftKeepsTheEndAndRightTheBeginning) {
  LearnedText text = CutText(Text(), {.text = 4}, v1::TRUNCATION_RIGHT);
  EXPECT_THAT(text.token_ids, ElementsAre(10, 11, 12, 13));
  EXPECT_THAT(text.loss_mask, ElementsAre(0, 0, 0, 1));
  EXPECT_THAT(text.target_rewards, ElementsAre(0.5));
  EXPECT_EQ(text.prompt_tokens, 3);
  EXPECT_EQ(text.cut_tokens, 2);
  text = CutText(Text(), {.text = 2}, v1::TRUNCATION_LEFT);
  EXPECT_THAT(text.token_ids, ElementsAre(14, 15));
  EXPECT_THAT(text.target_rewards, ElementsAre(2));
  EXPECT_EQ(text.prompt_tokens, 0);
}

TEST(CutPromptsTest, APromptIsCutBeforeItsText) {
  LearnedText text = CutText(Text(), {.prompt = 1, .text = 3}, v1::TRUNCATION_LEFT);
  EXPECT_THAT(text.token_ids, ElementsAre(13, 14, 15));
  text = CutText(Text(), {.prompt = 1, .text = 3}, v1::TRUNCATION_RIGHT);
  EXPECT_THAT(text.token_ids, ElementsAre(10, 13, 14));
  EXPECT_EQ(text.prompt_tokens, 1);
  EXPECT_EQ(text.cut_tokens, 3);
}

// Each target keeps its own weight, however the text is cut.
TEST(CutPromptsTest, OfRandomTexts) {
  std::mt19937 random(std::random_device{}());
  auto below = [&](uint32_t n) { return static_cast<uint32_t>(random() % n); };
  for (int round = 0; round < 500; ++round) {
    LearnedText text;
    const uint32_t size = 1 + below(40);
    for (uint32_t i = 0; i < size; ++i) {
      text.token_ids.push_back(i);
      text.loss_mask.push_back(static_cast<uint8_t>(below(2)));
      if (text.loss_mask.back() != 0) text.target_rewards.push_back(i);
    }
    text.prompt_tokens = below(size + 1);
    const LengthLimits limits{.prompt = below(20), .text = below(30)};
    const auto side = below(2) == 0 ? v1::TRUNCATION_LEFT : v1::TRUNCATION_RIGHT;
    const LearnedText cut = CutText(text, limits, side);
    EXPECT_TRUE(limits.prompt == 0 || cut.prompt_tokens <= limits.prompt) << cut.prompt_tokens;
    EXPECT_TRUE(limits.text == 0 || cut.token_ids.size() <= limits.text) << cut.token_ids.size();
    EXPECT_EQ(cut.cut_tokens + cut.token_ids.size(), size);
    ASSERT_EQ(cut.loss_mask.size(), cut.token_ids.size());
    std::vector<double> targets;
    for (size_t i = 0; i < cut.token_ids.size(); ++i) {
      EXPECT_EQ(cut.loss_mask[i], text.loss_mask[cut.token_ids[i]]);
      EXPECT_EQ(i < cut.prompt_tokens, cut.token_ids[i] < text.prompt_tokens);
      if (cut.loss_mask[i] != 0) targets.push_back(cut.token_ids[i]);
    }
    EXPECT_EQ(cut.target_rewards, targets);
  }
}

class OneLine final : public PromptSource {
 public:
  uint64_t size() const override { return 1; }
  uint64_t context_tokens() const override { return 6; }
  absl::StatusOr<Prompt> Read(uint64_t) override { return Prompt{.token_ids = {1, 2, 3, 4, 5, 6, 7, 8}}; }
  absl::StatusOr<std::vector<LearnedText>> ReadTexts(uint64_t) override { return std::vector<LearnedText>{Text()}; }
};

TEST(CutPromptsTest, ASourceOfPromptsAndTexts) {
  auto source = CutPrompts(std::make_unique<OneLine>(), {.prompt = 5}, {.text = 4}, v1::TRUNCATION_LEFT);
  auto prompt = source->Read(0);
  ASSERT_TRUE(prompt.ok());
  EXPECT_THAT(prompt->token_ids, ElementsAre(4, 5, 6, 7, 8));
  EXPECT_EQ(prompt->cut_tokens, 3);
  EXPECT_THAT(source->ReadTexts(0)->front().token_ids, ElementsAre(12, 13, 14, 15));
  EXPECT_EQ(source->context_tokens(), 6);
}

// What is left when nothing is learned any more is left out, and said why.
TEST(CutPromptsTest, ATextWithNothingLeftToLearnHasAFault) {
  v1::JobConfig job;
  job.mutable_sft();
  job.mutable_data()->mutable_train()->set_file("train.jsonl");
  auto length = [&](v1::Truncation side, uint64_t tokens) {
    job.mutable_data()->set_truncate(side);
    auto source = CutPrompts(std::make_unique<OneLine>(), {}, {.text = tokens}, side);
    return *LengthOf(*source, 0, job);
  };
  EXPECT_THAT(length(v1::TRUNCATION_RIGHT, 6).fault, IsEmpty());
  EXPECT_FALSE(length(v1::TRUNCATION_RIGHT, 6).is_cut);
  EXPECT_THAT(length(v1::TRUNCATION_RIGHT, 4).fault, IsEmpty());
  EXPECT_TRUE(length(v1::TRUNCATION_RIGHT, 4).is_cut);
  EXPECT_THAT(length(v1::TRUNCATION_RIGHT, 3).fault,
              HasSubstr("prompt 0 of train.jsonl has nothing left to learn: data.truncate cut it to 3 tokens"));
  EXPECT_THAT(length(v1::TRUNCATION_LEFT, 1).fault, HasSubstr("nothing left to learn"));
  EXPECT_TRUE(LeavesOut(job, "x").ok());
  job.mutable_sft()->set_train_on_prompt(true);
  EXPECT_THAT(length(v1::TRUNCATION_RIGHT, 3).fault, IsEmpty());
}

}  // namespace
}  // namespace rein::services

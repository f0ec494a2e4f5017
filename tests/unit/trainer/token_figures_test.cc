// What an Update says of single tokens: the trainer's log-probs and entropies before it learned from them.

#include <gtest/gtest.h>

#include <cmath>

#include "tests/unit/trainer/training_fixture.h"
#include "trainer/algorithms/algorithm.h"
#include "trainer/algorithms/policy_gradient.h"
#include "trainer/policy_trainer.h"

namespace rein::trainer {
namespace {

TrainerSettings WithFigures(int64_t microbatch_tokens = 8192) {
  TrainerSettings settings = Settings();
  settings.token_figures = true;
  settings.microbatch_tokens = microbatch_tokens;
  return settings;
}

TEST(TokenFiguresTest, LogprobsAreThoseBeforeTheStepAndEntropiesMakeTheMeanOne) {
  auto trainer = Make(WithFigures(), PolicyGradient({}));
  auto batch = OnPolicy(*trainer, 4, 4);
  for (TrainingSequence& s : batch) {
    for (float& logprob : s.behaviour_logprobs) logprob -= 0.25f;  // another policy sampled
  }
  const auto before = *trainer->Score(batch);
  auto result = trainer->Update(batch);
  ASSERT_TRUE(result.ok()) << result.status();
  ASSERT_TRUE(result->figures.has_value());
  double entropy = 0, tokens = 0;
  for (size_t i = 0; i < batch.size(); ++i) {
    ASSERT_EQ(result->figures->logprobs[i].size(), before[i].size());
    ASSERT_EQ(result->figures->entropies[i].size(), before[i].size());
    for (size_t t = 0; t < before[i].size(); ++t) {
      EXPECT_NEAR(result->figures->logprobs[i][t], before[i][t], 1e-5);
      entropy += result->figures->entropies[i][t];
      tokens += 1;
    }
  }
  EXPECT_NEAR(Find(result->metrics, "entropy"), entropy / tokens, 1e-4);
  EXPECT_GT(entropy, 0);
}

TEST(TokenFiguresTest, NeitherTheCutNorLaterPassesChangeThem) {
  PolicyGradientSettings settings;
  settings.epochs = 2;
  std::vector<TrainingSequence> batch;
  std::vector<TokenFigures> all;
  for (int64_t budget : {20, 8192}) {
    auto trainer = Make(WithFigures(budget), PolicyGradient(settings));
    if (batch.empty()) batch = OnPolicy(*trainer, 3, 4);
    auto result = trainer->Update(batch);
    ASSERT_TRUE(result.ok()) << result.status();
    all.push_back(*result->figures);
  }
  for (size_t i = 0; i < batch.size(); ++i) {
    for (size_t t = 0; t < all[0].logprobs[i].size(); ++t) {
      EXPECT_NEAR(all[0].logprobs[i][t], batch[i].behaviour_logprobs[t], 1e-5) << "the second pass sees a moved policy";
      EXPECT_NEAR(all[0].logprobs[i][t], all[1].logprobs[i][t], 1e-5);
      EXPECT_NEAR(all[0].entropies[i][t], all[1].entropies[i][t], 1e-5);
    }
  }
}

TEST(TokenFiguresTest, WhatTookNoPassHasNone) {
  auto trainer = Make(WithFigures(), PolicyGradient({}));
  auto batch = OnPolicy(*trainer, 2, 3);
  for (TrainingSequence& s : batch) {
    if (s.group == 0) s.reward = 0.5;
  }
  auto result = trainer->Update(batch);
  ASSERT_TRUE(result.ok()) << result.status();
  for (size_t i = 0; i < batch.size(); ++i) {
    EXPECT_EQ(result->figures->logprobs[i].empty(), batch[i].group == 0);
    EXPECT_EQ(result->figures->entropies[i].empty(), batch[i].group == 0);
  }
}

TEST(TokenFiguresTest, NobodyElsePaysForThem) {
  auto trainer = Make(Settings(), PolicyGradient({}));
  EXPECT_FALSE(trainer->Update(OnPolicy(*trainer, 2, 2))->figures.has_value()) << "they were not asked for";
  auto sft = Make(WithFigures(), Sft(Aggregation::kTokenMean));
  EXPECT_FALSE(sft->Update(RandomSequences(2, 1))->figures.has_value()) << "nothing was sampled";
}

}  // namespace
}  // namespace rein::trainer

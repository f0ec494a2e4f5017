// PPO: a critic beside the policy.

#include "trainer/critic.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include <filesystem>

#include "common/models/arena.h"
#include "tests/unit/trainer/training_fixture.h"
#include "trainer/algorithms/policy_gradient.h"
#include "trainer/trainer_checkpoint.h"

namespace rein::trainer {
namespace {

PolicyGradientSettings Ppo() {
  PolicyGradientSettings ppo;
  ppo.name = "ppo";
  ppo.advantage.kind = AdvantageKind::kGae;
  ppo.advantage.lambda = 0.95;
  ppo.epochs = 2;
  ppo.critic = CriticSettings{.learning_rate = 1e-2, .clip = 0.5};
  return ppo;
}

// The reward of a completion is told by its prompt alone, so a critic can know it.
std::vector<TrainingSequence> Predictable(PolicyTrainer& trainer) {
  auto batch = OnPolicy(trainer, 4, 4);
  for (auto& s : batch) {
    s.token_ids[2] = s.group % 2 == 0 ? 7 : 9;
    s.reward = s.group % 2 == 0 ? 1 : -1;
  }
  auto logprobs = *trainer.Score(batch);
  for (size_t i = 0; i < batch.size(); ++i) batch[i].behaviour_logprobs = logprobs[i];
  return batch;
}

// Turns as time steps: a tool's answer stands between two turns of the policy.
TEST(CriticTest, ATurnMayBeOneStepOfGae) {
  PolicyGradientSettings ppo = Ppo();
  ppo.advantage.turns = true;
  ppo.advantage.gamma = 0.5;
  TrainerSettings settings = Settings();
  settings.schedule.peak = 0;
  ppo.critic->learning_rate = 0;
  auto trainer = Make(settings, PolicyGradient(ppo));
  std::vector<TrainingSequence> batch(1);
  TrainingSequence& s = batch[0];
  s.token_ids = {1, 2, 3, 4, 5, 6, 7, 8};
  s.loss_mask = {0, 0, 1, 1, 0, 0, 1, 1};
  s.reward = 1;
  s.behaviour_logprobs = trainer->Score(batch)->front();
  UpdateBatch prepared = PrepareBatch(batch, PolicyGradient(ppo), 0, {{0.25f, 0.5f, 0.125f, 0.75f}});
  const double second = 1 - 0.125, first = 0.5 * 0.125 - 0.25 + 0.5 * 0.95 * second;
  EXPECT_EQ(prepared.advantages[0], (std::vector<double>{first, first, second, second}));
  EXPECT_EQ(prepared.returns[0][0], first + 0.25);
  EXPECT_TRUE(trainer->Update(batch).ok());
}

TEST(CriticTest, LearnsWhatRewardsCome) {
  at::manual_seed(3);  // of four random prompts in a batch some are hard to tell apart: one run in ten learns slower
  TrainerSettings settings = Settings();
  settings.schedule.peak = 0;  // the policy stays
  auto trainer = Make(settings, PolicyGradient(Ppo()));
  at::Tensor policy = trainer->compute().clone();
  constexpr int kUpdates = 30, kLast = 8;
  double first = 0, late = 0;  // the mean of the last few: single batches of 16 scatter
  for (int i = 0; i < kUpdates; ++i) {
    auto result = trainer->Update(Predictable(*trainer));
    ASSERT_TRUE(result.ok()) << result.status();
    const double explained = Find(result->metrics, "explained_variance");
    if (i == 0) first = explained;
    if (i >= kUpdates - kLast) late += explained / kLast;
  }
  EXPECT_LT(first, 0.3);
  EXPECT_GT(late, 0.6);
  EXPECT_TRUE(at::equal(policy, trainer->compute())) << "a learning rate of 0 moves nothing";
}

TEST(CriticTest, TheFirstStepDoesNotDependOnTheMicrobatches) {
  std::vector<at::Tensor> policy, critic;
  std::vector<TrainingSequence> batch;
  for (int64_t budget : {16, 100000}) {
    TrainerSettings settings = Settings();
    settings.microbatch_tokens = budget;
    PolicyGradientSettings ppo = Ppo();
    ppo.epochs = 1;
    auto trainer = Make(settings, PolicyGradient(ppo));
    if (batch.empty()) batch = Predictable(*trainer);
    ASSERT_TRUE(trainer->Update(batch).ok());
    policy.push_back(trainer->GatherArenas()->moment1);
    critic.push_back(trainer->critic()->Gather()->moment1);
  }
  for (const auto* m : {&policy, &critic}) {
    const double scale = (*m)[0].abs().max().item<double>();
    EXPECT_GT(scale, 0);
    EXPECT_LE(((*m)[0] - (*m)[1]).abs().max().item<double>(), 1e-6 * scale + 1e-9);
  }
}

TEST(CriticTest, ACheckpointResumesBitForBit) {
  const std::string path = testing::TempDir() + "/critic_checkpoint";
  std::filesystem::remove_all(path);
  auto a = Make(Settings(), PolicyGradient(Ppo()));
  ASSERT_TRUE(a->Update(Predictable(*a)).ok());
  ASSERT_TRUE(SaveCheckpoint(*a, path, {.controller_state = "x", .tokenizer_folder = ""}).ok());
  TrainerSettings other = Settings();
  other.seed = 9;
  auto b = Make(other, PolicyGradient(Ppo()));
  auto state = RestoreCheckpoint(*b, path);
  ASSERT_TRUE(state.ok()) << state.status();
  EXPECT_EQ(*state, "x");
  auto batch = Predictable(*a);
  ASSERT_TRUE(a->Update(batch).ok());
  ASSERT_TRUE(b->Update(batch).ok());
  EXPECT_TRUE(at::equal(a->compute(), b->compute()));
  EXPECT_TRUE(at::equal(a->critic()->compute(), b->critic()->compute()));
}

// With low-rank updates the critic's own matrices stay, also in 4 bits; the updates and the head learn.
TEST(CriticTest, WithAdaptersItLearnsAndLeavesItsBaseAlone) {
  constexpr const char* kBase = "tests/golden/models/llama";
  const std::string path = testing::TempDir() + "/critic_adapters";
  for (weights::Quantisation base : {weights::Quantisation::kNone, weights::Quantisation::kNf4}) {
    TrainerSettings settings = Settings();
    settings.model_path = kBase;
    settings.random_weights = false;
    settings.schedule.peak = 0;
    settings.trained = {.lora = models::LoraChoice{.rank = 4}, .base = base};
    settings.critic_trained = {.lora = models::LoraChoice{.rank = 4}, .base = base};
    PolicyGradientSettings ppo = Ppo();
    ppo.critic->learning_rate = 3e-2;
    auto trainer = Make(settings, PolicyGradient(ppo));
    ParameterSet& critic = *trainer->critic();
    EXPECT_LT(critic.grad().numel(), critic.compute().numel() + critic.registry().quantised_elements());
    EXPECT_TRUE(critic.registry().Find("score.weight")->spec.trained);
    EXPECT_EQ(critic.registry().quantised_elements() > 0, base != weights::Quantisation::kNone);
    const uint64_t frozen = critic.frozen_digest();
    at::Tensor before = critic.parts().trained.clone();
    at::manual_seed(3);  // as above
    constexpr int kUpdates = 20, kLast = 6;
    double first = 0, late = 0;
    for (int i = 0; i < kUpdates; ++i) {
      auto result = trainer->Update(Predictable(*trainer));
      ASSERT_TRUE(result.ok()) << result.status();
      const double explained = Find(result->metrics, "explained_variance");
      if (i == 0) first = explained;
      if (i >= kUpdates - kLast) late += explained / kLast;
    }
    EXPECT_LT(first, 0.3);
    EXPECT_GT(late, first + 0.2);
    EXPECT_FALSE(at::equal(critic.parts().trained, before));
    EXPECT_EQ(*models::FrozenDigest(critic.registry(), critic.parts()), frozen);

    std::filesystem::remove_all(path);
    ASSERT_TRUE(SaveCheckpoint(*trainer, path, {.controller_state = "x", .tokenizer_folder = ""}).ok());
    auto again = Make(settings, PolicyGradient(ppo));
    auto state = RestoreCheckpoint(*again, path);
    ASSERT_TRUE(state.ok()) << state.status();
    EXPECT_TRUE(at::equal(again->critic()->compute(), critic.compute()));
    settings.critic_trained = {};
    auto whole = Make(settings, PolicyGradient(ppo));
    EXPECT_THAT(std::string(RestoreCheckpoint(*whole, path).status().message()),
                testing::HasSubstr("with the same ppo.critic and model.base"));
  }
  std::filesystem::remove_all(path);
}

// The critic's step overflows after the policy's was made: both are as before.
TEST(CriticTest, WhenTheCriticGivesUpThePolicyIsAsBefore) {
  PolicyGradientSettings ppo = Ppo();
  ppo.critic->learning_rate = 1e30;
  auto trainer = Make(Settings(), PolicyGradient(ppo));
  auto batch = Predictable(*trainer);
  at::Tensor policy = trainer->compute().clone(), critic = trainer->critic()->compute().clone();
  absl::Status status = trainer->Update(batch).status();
  EXPECT_TRUE(absl::IsAborted(status)) << status;
  EXPECT_TRUE(at::equal(policy, trainer->compute()));
  EXPECT_TRUE(at::equal(critic, trainer->critic()->compute()));
  EXPECT_EQ(trainer->progress().optimizer_steps, 0);
}

TEST(CriticTest, StartsFromACausalModelWithValuesOfZero) {
  TrainerSettings settings = Settings();
  settings.random_weights = false;
  PolicyGradientSettings ppo = Ppo();
  auto trainer = Make(settings, PolicyGradient(ppo));
  const weights::Registry& registry = trainer->critic()->registry();
  for (const weights::Parameter& p : registry.parameters()) {
    at::Tensor own = trainer->critic()->compute().narrow(0, p.offset, p.elements);
    const double largest = own.abs().max().item<double>();
    if (p.spec.name == "score.weight") {
      EXPECT_EQ(largest, 0);
    } else if (p.spec.name == "embedding.weight") {
      EXPECT_GT(largest, 0);
    }
  }
}

}  // namespace
}  // namespace rein::trainer

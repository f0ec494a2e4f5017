#include "trainer/policy_trainer.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "tests/unit/trainer/training_fixture.h"
#include "trainer/algorithms/policy_gradient.h"
#include "trainer/packed_targets.h"

namespace rein::trainer {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

TEST(PolicyTrainerTest, OnPolicyRatioIsOneAndTheLossIsMinusTheMeanAdvantage) {
  auto trainer = Make(Settings(), PolicyGradient({}));
  auto batch = OnPolicy(*trainer, 4, 4);
  auto result = trainer->Update(batch);
  ASSERT_TRUE(result.ok()) << result.status();
  double want = 0, tokens = 0;
  for (size_t i = 0; i < batch.size(); ++i) {
    want -= result->advantages[i] * static_cast<double>(batch[i].targets());
    tokens += static_cast<double>(batch[i].targets());
  }
  EXPECT_NEAR(Find(result->metrics, "loss"), want / tokens, 1e-5);
  EXPECT_LE(Find(result->metrics, "logprob_diff_max"), 1e-5);
  EXPECT_EQ(Find(result->metrics, "clip_ratio_low"), 0);
  EXPECT_EQ(trainer->progress().updates, 1u);
}

// What the weights in training sampled must have the log-probs that the generator gave; only before the first step.
TEST(PolicyTrainerTest, ATokenThatTheGeneratorScoredOtherwiseIsNamed) {
  PolicyGradientSettings settings;
  settings.minibatches = 2;
  auto trainer = Make(Settings(), PolicyGradient(settings));
  auto batch = OnPolicy(*trainer, 4, 4);
  auto result = trainer->Update(batch);
  ASSERT_TRUE(result.ok()) << result.status();
  for (const Metric& metric : result->metrics) {
    EXPECT_THAT(metric.name, Not(HasSubstr("mismatch"))) << "of other weights nothing is promised";
  }

  batch = OnPolicy(*trainer, 4, 4);
  for (TrainingSequence& s : batch) s.on_policy = true;
  result = trainer->Update(batch);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_LE(Find(result->metrics, "mismatch_max"), 1e-5);
  EXPECT_GT(Find(result->metrics, "logprob_diff_max"), 1e-4) << "the second minibatch sees a moved policy";
  EXPECT_EQ(Find(result->metrics, "mismatch_tokens"), 0);
  EXPECT_TRUE(result->mismatched.empty());

  batch = OnPolicy(*trainer, 4, 4);
  for (TrainingSequence& s : batch) s.on_policy = true;
  batch[1].behaviour_logprobs.back() += 0.25f;
  batch[2].behaviour_logprobs[0] -= 0.125f;
  result = trainer->Update(batch);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_NEAR(Find(result->metrics, "mismatch_max"), 0.25, 1e-5);
  EXPECT_EQ(Find(result->metrics, "mismatch_tokens"), 2);
  ASSERT_EQ(result->mismatched.size(), 1u);
  EXPECT_EQ(result->mismatched[0].sequence, batch[1].id);
  EXPECT_EQ(result->mismatched[0].target, batch[1].targets() - 1);
  EXPECT_NEAR(result->mismatched[0].behaviour_logprob - result->mismatched[0].policy_logprob, 0.25, 1e-5);
}

TEST(PolicyTrainerTest, AnySplitIntoMicrobatchesGivesTheSameWeights) {
  for (Aggregation aggregation : {Aggregation::kTokenMean, Aggregation::kSequenceMean, Aggregation::kSequenceSum}) {
    std::vector<at::Tensor> results;
    std::vector<TrainingSequence> batch;
    for (int64_t budget : {16, 50, 100000}) {
      for (bool recompute : {false, true}) {
        TrainerSettings settings = Settings();
        settings.microbatch_tokens = budget;
        settings.recompute = recompute;
        PolicyGradientSettings grpo;
        grpo.aggregation = aggregation;
        auto trainer = Make(settings, PolicyGradient(grpo));
        if (batch.empty()) batch = OnPolicy(*trainer, 5, 3);
        auto pass = trainer->ForwardBackward(batch);
        ASSERT_TRUE(pass.ok()) << pass.status();
        ASSERT_TRUE(trainer->OptimStep(std::nullopt).ok());
        results.push_back(trainer->GatherArenas()->moment1);  // (1 - beta1) * clipped gradient
      }
    }
    const double scale = results[0].abs().max().item<double>();
    for (const at::Tensor& r : results) {
      EXPECT_LE((r - results[0]).abs().max().item<double>(), 1e-6 * scale + 1e-9);
    }
  }
}

// A prompt is computed once for the siblings that stand side by side: the same log-probs and the same step as
// when every sequence has a copy of its own, whatever stands between the siblings and however they are cut.
TEST(PolicyTrainerTest, ASharedPromptGivesTheStepOfItsCopies) {
  PolicyGradientSettings grpo;
  grpo.entropy_coefficient = 0.01;
  std::vector<TrainingSequence> batch;
  std::vector<at::Tensor> moments;
  std::vector<std::vector<std::vector<float>>> logprobs;
  for (bool share : {false, true}) {
    for (int64_t budget : {20, 37, 100000}) {
      TrainerSettings settings = Settings();
      settings.share_prompts = share;
      settings.microbatch_tokens = budget;
      auto trainer = Make(settings, PolicyGradient(grpo));
      if (batch.empty()) {
        batch = OnPolicy(*trainer, 6, 4);
        std::swap(batch[1], batch[9]);                     // siblings apart
        batch[13].loss_mask = {0, 1, 0, 1};                // another first target behind the same tokens
        batch[13].loss_mask.resize(batch[13].token_ids.size(), 1);
        batch[13].behaviour_logprobs = trainer->Score({batch[13]})->front();
      }
      auto scored = trainer->Score(batch);
      ASSERT_TRUE(scored.ok()) << scored.status();
      logprobs.push_back(*scored);
      auto result = trainer->Update(batch);
      ASSERT_TRUE(result.ok()) << result.status();
      moments.push_back(trainer->GatherArenas()->moment1);
      const double tokens = Find(result->metrics, "tokens"), computed = Find(result->metrics, "computed_tokens");
      EXPECT_EQ(computed < tokens, share);
      EXPECT_LE(computed, tokens);
    }
  }
  const double scale = moments[0].abs().max().item<double>();
  for (size_t run = 1; run < moments.size(); ++run) {
    EXPECT_LE((moments[run] - moments[0]).abs().max().item<double>(), 2e-6 * scale) << run;
    for (size_t i = 0; i < batch.size(); ++i) {
      ASSERT_EQ(logprobs[run][i].size(), logprobs[0][i].size());
      for (size_t t = 0; t < logprobs[0][i].size(); ++t) {
        EXPECT_NEAR(logprobs[run][i][t], logprobs[0][i][t], 1e-5) << batch[i].id << " " << t;
      }
    }
  }
}

TEST(PackedTargetsTest, SiblingsFollowOneCopyOfTheirPrompt) {
  auto sequence = [](std::vector<int64_t> tokens, size_t prompt) {
    TrainingSequence s{.token_ids = tokens, .loss_mask = std::vector<uint8_t>(tokens.size(), 1)};
    std::fill_n(s.loss_mask.begin(), prompt, 0);
    return s;
  };
  const std::vector<TrainingSequence> sequences = {sequence({1, 2, 3, 10}, 3), sequence({1, 2, 3, 20, 21}, 3),
                                                   sequence({4, 5, 30}, 2), sequence({4, 5}, 2)};
  const PackedTargets packed = PackTargets(sequences, {0, 1, 2, 3});
  EXPECT_EQ(packed.token, (std::vector<int64_t>{1, 2, 3, 10, 20, 21, 4, 5, 30, 4, 5}));
  EXPECT_EQ(packed.source, (std::vector<int64_t>{2, 2, 4, 7}));
  EXPECT_EQ(packed.target, (std::vector<int64_t>{10, 20, 21, 30}));
  EXPECT_EQ(packed.last, (std::vector<int64_t>{3, 5, 8, 10}));
  std::vector<int64_t> lengths;
  std::vector<bool> continues;
  for (const nn::Segment& s : packed.segments) {
    lengths.push_back(s.length);
    continues.push_back(s.continues);
  }
  EXPECT_EQ(lengths, (std::vector<int64_t>{3, 1, 2, 3, 2}));
  EXPECT_EQ(continues, (std::vector<bool>{false, true, true, false, false}));
  EXPECT_EQ(PackTargets(sequences, {0, 1}, /*share=*/false).token, (std::vector<int64_t>{1, 2, 3, 10, 1, 2, 3, 20, 21}));
  EXPECT_EQ(PackTargets(sequences, {0, 2, 1}).token.size(), 12u);  // not neighbours
}

// Groups of equal rewards, and truncated completions that are masked, cost no forward pass and change
// nothing: the step is that of the batch with them computed.
TEST(PolicyTrainerTest, WhatTeachesNothingIsNotComputed) {
  PolicyGradientSettings settings;
  settings.mask_truncated = true;
  auto skipping = Make(Settings(), PolicyGradient(settings));
  Algorithm whole = PolicyGradient(settings);
  whole.skips_zero_advantage = false;
  auto computing = Make(Settings(), whole);
  auto batch = OnPolicy(*skipping, 3, 4);
  for (auto& s : batch) {
    if (s.group == 1) s.reward = 0.1;
  }
  batch[0].truncated = true;
  double useful = 0;
  for (size_t i = 1; i < batch.size(); ++i) {
    if (batch[i].group != 1) useful += static_cast<double>(batch[i].token_ids.size());
  }
  auto result = skipping->Update(batch);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(Find(result->metrics, "tokens"), useful);  // one forward and backward for each, no more
  auto other = computing->Update(batch);
  ASSERT_TRUE(other.ok()) << other.status();
  EXPECT_GT(Find(other->metrics, "tokens"), useful);
  EXPECT_NEAR(Find(result->metrics, "loss"), Find(other->metrics, "loss"), 1e-6);
  at::Tensor moment = skipping->GatherArenas()->moment1, want = computing->GatherArenas()->moment1;
  EXPECT_LE((moment - want).abs().max().item<double>(), 1e-6 * want.abs().max().item<double>() + 1e-9);
}

TEST(PolicyTrainerTest, NoSignalAtAllIsAnUpdateOfNothing) {
  auto trainer = Make(Settings(), PolicyGradient({}));
  auto batch = OnPolicy(*trainer, 2, 2);
  for (auto& s : batch) s.reward = 0.3;
  at::Tensor before = trainer->compute().clone();
  auto result = trainer->Update(batch);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(Find(result->metrics, "tokens"), 0);
  EXPECT_EQ(Find(result->metrics, "ratio_max"), 0);
  EXPECT_TRUE(at::equal(trainer->compute(), before));
}

// With another old policy than the one that sampled, ratios start at 1 again and the weights tell the rest.
TEST(PolicyTrainerTest, RecomputedOldLogprobsMakeTheRatioOne) {
  PolicyGradientSettings settings;
  settings.recompute_old = true;
  settings.correction = ImportanceCorrection{.high = 2};
  auto trainer = Make(Settings(), PolicyGradient(settings));
  auto batch = OnPolicy(*trainer, 3, 3);
  for (auto& s : batch) {
    for (float& logprob : s.behaviour_logprobs) logprob -= 0.5f;
  }
  auto result = trainer->Update(batch);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_NEAR(Find(result->metrics, "ratio_mean"), 1, 1e-5);
  EXPECT_NEAR(Find(result->metrics, "correction_mean"), std::exp(0.5), 1e-4);
  EXPECT_NEAR(Find(result->metrics, "logprob_diff_mean"), 0.5, 1e-5);
  EXPECT_NEAR(Find(result->metrics, "chi_square"), std::exp(1.0) - 1, 1e-3);
  EXPECT_NEAR(Find(result->metrics, "effective_sample_ratio"), 1, 1e-5);
}

TEST(PolicyTrainerTest, EpochsAndMinibatchesAreOptimizerSteps) {
  PolicyGradientSettings settings;
  settings.epochs = 3;
  settings.minibatches = 2;
  auto trainer = Make(Settings(), PolicyGradient(settings));
  auto result = trainer->Update(OnPolicy(*trainer, 4, 2));
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(trainer->progress().optimizer_steps, 6);
  EXPECT_EQ(trainer->progress().updates, 1u);
  EXPECT_GT(Find(result->metrics, "logprob_diff_max"), 1e-4);  // later steps see a moved policy
}

TEST(PolicyTrainerTest, KlInTheRewardMovesAdvantagesAndItsCoefficient) {
  PolicyGradientSettings settings;
  settings.advantage.kind = AdvantageKind::kRewardToGo;
  settings.kl = {.coefficient = 0.5, .in_reward = true, .target = 0.1, .horizon = 10};
  auto trainer = Make(Settings(), PolicyGradient(settings));
  auto batch = OnPolicy(*trainer, 2, 2);
  for (auto& s : batch) {
    s.reward = 1;
    s.reference_logprobs = s.behaviour_logprobs;
    for (float& logprob : s.reference_logprobs) logprob -= 0.4f;  // KL 0.4 a token
  }
  auto result = trainer->Update(batch);
  ASSERT_TRUE(result.ok()) << result.status();
  const double n = static_cast<double>(batch[0].targets());
  EXPECT_NEAR(result->advantages[0], 1 - 0.5 * 0.4 * (n + 1) / 2, 1e-5);  // mean of the rewards to go
  EXPECT_EQ(Find(result->metrics, "kl_coefficient"), 0.5);
  // Far above the target: up by the largest step, 0.2 * 4 rollouts / 10.
  EXPECT_NEAR(*trainer->progress().kl_coefficient, 0.5 * 1.08, 1e-6);
}

TEST(PolicyTrainerTest, EveryObjectiveMakesAStepThatDoesNotDependOnTheMicrobatches) {
  const std::vector<std::pair<RatioLevel, Surrogate>> objectives = {
      {RatioLevel::kSequence, ClipRange{}}, {RatioLevel::kGeometric, ClipRange{}},
      {RatioLevel::kToken, WeightRange{}},  {RatioLevel::kToken, SoftGate{}},
      {RatioLevel::kToken, DivergenceMask{}}, {RatioLevel::kToken, PlainGradient{}}};
  for (const auto& [ratio, surrogate] : objectives) {
    PolicyGradientSettings settings;
    settings.ratio = ratio;
    settings.surrogate = surrogate;
    settings.aggregation = Aggregation::kSequenceMean;
    settings.rejection = Rejection{.statistic = RejectionStatistic::kSequenceMaxK3, .high = 100};
    settings.mask_negative_above = 10;
    settings.entropy_coefficient = 0.01;
    std::vector<at::Tensor> moments;
    std::vector<TrainingSequence> batch;
    for (int64_t budget : {16, 100000}) {
      TrainerSettings trainer_settings = Settings();
      trainer_settings.microbatch_tokens = budget;
      auto trainer = Make(trainer_settings, PolicyGradient(settings));
      if (batch.empty()) batch = OnPolicy(*trainer, 3, 3);
      auto result = trainer->Update(batch);
      ASSERT_TRUE(result.ok()) << result.status();
      moments.push_back(trainer->GatherArenas()->moment1);
    }
    const double scale = moments[0].abs().max().item<double>();
    EXPECT_GT(scale, 0) << surrogate.index();
    EXPECT_LE((moments[1] - moments[0]).abs().max().item<double>(), 1e-6 * scale + 1e-9) << surrogate.index();
  }
}

TEST(PolicyTrainerTest, ALearningRateOfZeroMovesNothing) {
  TrainerSettings settings = Settings();
  settings.schedule.peak = 0;
  auto trainer = Make(settings, PolicyGradient({}));
  const auto batch = OnPolicy(*trainer, 3, 3);
  for (int i = 0; i < 20; ++i) ASSERT_TRUE(trainer->Update(batch).ok());
  auto logprobs = *trainer->Score(batch);
  for (size_t i = 0; i < batch.size(); ++i) EXPECT_EQ(logprobs[i], batch[i].behaviour_logprobs);
}

TEST(PolicyTrainerTest, ResumeIsBitForBit) {
  PolicyGradientSettings grpo;
  grpo.minibatches = 2;
  auto a = Make(Settings(), PolicyGradient(grpo));
  auto first = OnPolicy(*a, 4, 4);
  ASSERT_TRUE(a->Update(first).ok());
  auto arenas = *a->GatherArenas();
  Arenas kept{arenas.master.clone(), arenas.moment1.clone(), arenas.moment2.clone()};
  TrainerSettings other = Settings();
  other.seed = 99;  // other random weights, which the restore must replace
  auto b = Make(other, PolicyGradient(grpo));
  ASSERT_TRUE(b->RestoreArenas(kept, a->progress()).ok());
  auto second = OnPolicy(*a, 4, 4);
  ASSERT_TRUE(a->Update(second).ok());
  ASSERT_TRUE(b->Update(second).ok());
  EXPECT_TRUE(at::equal(a->compute(), b->compute()));
}

TEST(PolicyTrainerTest, SftLearnsATarget) {
  auto trainer = Make(Settings(), Sft(Aggregation::kTokenMean));
  TrainingSequence s{.id = "x", .token_ids = {5, 6, 7, 8, 9}, .loss_mask = {0, 0, 1, 1, 1}};
  double first = 0, last = 0;
  for (int i = 0; i < 30; ++i) {
    auto result = trainer->Update({s});
    ASSERT_TRUE(result.ok()) << result.status();
    last = Find(result->metrics, "loss");
    if (i == 0) first = last;
  }
  EXPECT_NEAR(first, std::log(61), 0.5);
  EXPECT_LT(last, 0.1);
}

// The first of two minibatches takes an infinite step. Every weight is then infinite or NaN, and with them whatever the second
// one computes, on any machine: after a step that is only huge, which token overflows first depends on the order of sums.
TEST(PolicyTrainerTest, ANonFiniteLossChangesNothingAndIsNamed) {
  PolicyGradientSettings grpo;
  grpo.minibatches = 2;
  TrainerSettings settings = Settings();
  settings.schedule.peak = INFINITY;
  auto trainer = Make(settings, PolicyGradient(grpo));
  auto batch = OnPolicy(*trainer, 4, 2);
  at::Tensor before = trainer->compute().clone();
  absl::Status status = trainer->Update(batch).status();
  EXPECT_TRUE(absl::IsAborted(status)) << status;
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("loss is not finite (first: rollout 2/0, token 0, policy_logprob nan)"));
  EXPECT_TRUE(at::equal(trainer->compute(), before));
  EXPECT_EQ(trainer->GatherArenas()->moment1.abs().max().item<float>(), 0);
  EXPECT_EQ(trainer->progress().updates, 0u);
  EXPECT_EQ(trainer->progress().optimizer_steps, 0);
}

TEST(PolicyTrainerTest, TheFirstFigureThatIsNotFiniteIsNamed) {
  std::vector<TrainingSequence> sequences = {{.id = "0/0", .token_ids = {1, 2, 3}, .loss_mask = {0, 1, 1}},
                                             {.id = "0/1", .token_ids = {1, 2, 3, 4}, .loss_mask = {0, 1, 1, 1}}};
  const PackedTargets packed = PackTargets(sequences, {1, 0});
  std::vector<std::vector<float>> parts(2);
  auto split = [&](std::vector<float> figures) {
    return std::string(SplitTargets(at::tensor(figures), packed, sequences, {1, 0}, "entropy", &parts).message());
  };
  EXPECT_EQ(split({1, 2, 3, 4, 5}), "");
  EXPECT_EQ(parts, (std::vector<std::vector<float>>{{4, 5}, {1, 2, 3}}));
  EXPECT_THAT(split({1, 2, INFINITY, NAN, 5}), HasSubstr("(first: rollout 0/1, token 2, entropy inf)"));
  EXPECT_THAT(split({1, 2, 3, 4, NAN}), HasSubstr("(first: rollout 0/0, token 1, entropy nan)"));
}

TEST(PolicyTrainerTest, RefusesWhatDoesNotFit) {
  auto trainer = Make(Settings(), PolicyGradient({}));
  auto error = [&](auto change) {
    auto batch = OnPolicy(*trainer, 1, 2);
    change(batch[1]);
    return std::string(trainer->Update(batch).status().message());
  };
  EXPECT_THAT(error([](auto& s) { s.token_ids[0] = 61; }),
              HasSubstr("sequence 1 (0/1): token id 61 is outside the vocabulary of 61"));
  EXPECT_THAT(error([](auto& s) { s.behaviour_logprobs.pop_back(); }), HasSubstr("behaviour_logprobs for"));
  EXPECT_THAT(error([](auto& s) { s.loss_mask[0] = 1; }), HasSubstr("the first 0"));
  EXPECT_THAT(error([](auto& s) { s.behaviour_logprobs[0] = -INFINITY; }), HasSubstr("logprob of -inf"));
  EXPECT_THAT(error([](auto& s) { s.reward = NAN; }), HasSubstr("reward is nan"));
  EXPECT_THAT(error([](auto& s) { s.token_ids.resize(100); }), HasSubstr("has 100 tokens, want 2 to 64"));
  EXPECT_TRUE(absl::IsFailedPrecondition(trainer->OptimStep(std::nullopt).status()));
}

// Turns earn their own rewards: credit for a turn does not reach turns after it.
TEST(PolicyTrainerTest, TurnRewardsStandAtTheEndOfTheirTurns) {
  PolicyGradientSettings settings;
  settings.advantage.kind = AdvantageKind::kRewardToGo;
  auto trainer = Make(Settings(), PolicyGradient(settings));
  std::vector<TrainingSequence> batch = {{.id = "0/0", .token_ids = {1, 2, 3, 4, 5, 6}, .loss_mask = {0, 1, 0, 0, 1, 1}}};
  batch[0].reward = 3;
  batch[0].behaviour_logprobs = trainer->Score(batch)->front();
  const UpdateBatch at_end = PrepareBatch(batch, PolicyGradient(settings), 0);
  EXPECT_EQ(at_end.advantages[0], (std::vector<double>{3, 3, 3}));
  batch[0].turn_rewards = {1, 2};
  const UpdateBatch by_turn = PrepareBatch(batch, PolicyGradient(settings), 0);
  EXPECT_EQ(by_turn.advantages[0], (std::vector<double>{3, 2, 2}));
  EXPECT_TRUE(trainer->Update(batch).ok());
  batch[0].turn_rewards = {1};
  EXPECT_THAT(std::string(trainer->Update(batch).status().message()), HasSubstr("has 1 turn_rewards for 2 runs of targets"));
}

// Rotations know differences of positions alone.
TEST(PolicyTrainerTest, ASequenceMayBeginAtALaterPosition) {
  auto trainer = Make(Settings(), Sft(Aggregation::kTokenMean));
  auto batch = RandomSequences(6, 1);
  auto there = batch;
  for (TrainingSequence& s : there) s.first_position = 11;
  auto from_zero = *trainer->Score(batch), later = *trainer->Score(there);
  for (size_t i = 0; i < batch.size(); ++i) {
    for (size_t t = 0; t < from_zero[i].size(); ++t) EXPECT_NEAR(from_zero[i][t], later[i][t], 1e-5);
  }
  there[2].first_position = trainer->model().spec.max_positions - 1;
  EXPECT_THAT(std::string(trainer->Score(there).status().message()), HasSubstr("sequence 2 ("));
  EXPECT_THAT(std::string(trainer->Score(there).status().message()), HasSubstr("want it to end by"));
}

}  // namespace
}  // namespace rein::trainer

// What a job can add to a loss: z-loss, noise on embeddings, masks by covariance.

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "tests/unit/trainer/training_fixture.h"
#include "trainer/algorithms/policy_gradient.h"
#include "trainer/packed_targets.h"
#include "trainer/policy_trainer.h"

namespace rein::trainer {
namespace {

// The gradient of the same loss, whatever the split, with what stands beside the log-probs.
void ExpectOneGradient(const std::function<Algorithm()>& algorithm) {
  std::vector<TrainingSequence> batch;
  std::vector<at::Tensor> moments;
  std::vector<double> losses;
  for (int64_t budget : {16, 50, 100000}) {
    TrainerSettings settings = Settings();
    settings.microbatch_tokens = budget;
    auto trainer = Make(settings, algorithm());
    if (batch.empty()) {
      batch = OnPolicy(*trainer, 5, 3);
      for (TrainingSequence& s : batch) {  // a little off policy, either way
        for (size_t t = 0; t < s.behaviour_logprobs.size(); ++t) s.behaviour_logprobs[t] += t % 2 == 0 ? 0.1f : -0.1f;
      }
    }
    auto result = trainer->Update(batch);
    ASSERT_TRUE(result.ok()) << result.status();
    losses.push_back(Find(result->metrics, "loss"));
    moments.push_back(trainer->GatherArenas()->moment1);
  }
  const double scale = moments[0].abs().max().item<double>();
  for (size_t i = 1; i < moments.size(); ++i) {
    EXPECT_LE((moments[i] - moments[0]).abs().max().item<double>(), 2e-6 * scale);
    EXPECT_NEAR(losses[i], losses[0], 1e-5);
  }
}

TEST(PolicyTrainerTest, ZLossIsTheSquareOfLogZ) {
  constexpr double kWeight = 0.1;
  auto trainer = Make(Settings(), Sft(Aggregation::kTokenMean, kWeight));
  auto plain = Make(Settings(), Sft(Aggregation::kTokenMean));
  const auto batch = RandomSequences(1, 1);
  // By hand: every logit of the model at the targets.
  const PackedTargets packed = PackTargets(batch, {0});
  double wanted = 0;
  {
    at::NoGradGuard no_grad;
    auto decoder = *models::Decoder::Create(trainer->model().spec, trainer->registry(), trainer->compute());
    at::Tensor hidden = decoder->Hidden(at::tensor(packed.token, at::kLong), nn::PackedSegments(packed.segments, at::kCPU));
    at::Tensor logits = decoder->Logits(hidden.index_select(0, at::tensor(packed.source, at::kLong)));
    wanted = kWeight * at::logsumexp(logits.to(at::kDouble), 1).square().mean().item<double>();
  }
  auto with = trainer->ForwardBackward(batch);
  auto without = plain->ForwardBackward(batch);
  ASSERT_TRUE(with.ok()) << with.status();
  EXPECT_NEAR(Find(with->metrics, "z_loss"), wanted, 1e-5 * wanted);
  EXPECT_NEAR(Find(with->metrics, "loss") - Find(without->metrics, "loss"), wanted, 1e-5 * wanted);
  ExpectOneGradient([] { return Sft(Aggregation::kTokenMean, 0.1); });
}

// Logits that are far from 0 come back. Near 0, after some fifteen updates, AdamW may leap away again.
TEST(PolicyTrainerTest, ZLossHasItsGradient) {
  auto trainer = Make(Settings(), Sft(Aggregation::kTokenMean, 1.0));
  const auto batch = RandomSequences(4, 1);
  double first = 0, last = 0;
  for (int i = 0; i < 10; ++i) {
    auto result = trainer->Update(batch);
    ASSERT_TRUE(result.ok()) << result.status();
    last = Find(result->metrics, "z_loss");
    if (i == 0) first = last;
  }
  EXPECT_LT(last, 0.7 * first);
}

TEST(PolicyTrainerTest, EmbeddingNoiseDependsOnTheSequenceAndTheUpdateAlone) {
  auto noisy = [] {
    Algorithm sft = Sft(Aggregation::kTokenMean);
    sft.embedding_noise = 5;
    return sft;
  };
  ExpectOneGradient(noisy);
  auto trainer = Make(Settings(), noisy()), again = Make(Settings(), noisy()),
       plain = Make(Settings(), Sft(Aggregation::kTokenMean));
  const auto batch = RandomSequences(3, 2);
  const double loss = Find(trainer->Update(batch)->metrics, "loss");
  EXPECT_EQ(loss, Find(again->Update(batch)->metrics, "loss"));
  EXPECT_NE(loss, Find(plain->Update(batch)->metrics, "loss"));
  auto scored = trainer->Score(batch), quiet = again->Score(batch);
  EXPECT_EQ(*scored, *quiet) << "scores are without noise";
}

TEST(PolicyTrainerTest, CovarianceMasksTakeTheSameTokensInAnySplit) {
  for (bool clip : {true, false}) {
    ExpectOneGradient([clip] {
      PolicyGradientSettings s;
      (clip ? s.clip_cov : s.kl_cov) = TokenSelection{{}, 0.3};
      if (clip) s.clip_cov->range = CovarianceRange{-1, 1};
      return PolicyGradient(s);
    });
  }
  PolicyGradientSettings held;
  held.kl_cov = TokenSelection{{}, 1.0};
  auto held_back = Make(Settings(), PolicyGradient(held)), plain = Make(Settings(), PolicyGradient({}));
  auto on_policy = OnPolicy(*plain, 3, 3);
  const double norm = Find(held_back->Update(on_policy)->metrics, "grad_norm");
  EXPECT_NEAR(norm, Find(plain->Update(on_policy)->metrics, "grad_norm"), 1e-5 * norm)
      << "what has not moved is not held back";
  PolicyGradientSettings all;
  all.clip_cov = TokenSelection{CovarianceRange{-1000, 1000}, 1.0};
  auto trainer = Make(Settings(), PolicyGradient(all));
  auto batch = OnPolicy(*trainer, 3, 3);
  auto result = trainer->Update(batch);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(Find(result->metrics, "selected_ratio"), 1);
  EXPECT_EQ(Find(result->metrics, "grad_norm"), 0) << "every token was left out";
}

}  // namespace
}  // namespace rein::trainer

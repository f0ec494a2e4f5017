// A loss that comes from outside, by its derivatives.

#include <ATen/ATen.h>
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

using ::testing::HasSubstr;

// GRPO's clipped objective, mean over tokens, then sequences, as somebody else would compute it: the derivatives by hand.
OutsideLoss GrpoByHand(const OutsideBatch& batch) {
  OutsideLoss answer;
  for (size_t i = 0; i < batch.sequences.size(); ++i) {
    const TrainingSequence& s = *batch.sequences[i];
    auto& row = answer.logprob_gradients.emplace_back();
    const double weight = 1.0 / static_cast<double>(batch.sequences.size() * s.behaviour_logprobs.size());
    for (size_t t = 0; t < s.behaviour_logprobs.size(); ++t) {
      const double ratio = std::exp(static_cast<double>(batch.policy_logprobs[i][t]) - s.behaviour_logprobs[t]);
      const double a = batch.advantages[i][t], clipped = std::clamp(ratio, 0.8, 1.2);
      answer.loss += weight * std::max(-a * ratio, -a * clipped);
      row.push_back(-a * ratio >= -a * clipped ? static_cast<float>(-a * ratio * weight) : 0.0f);
    }
  }
  answer.metrics.push_back({"mine", 7});
  return answer;
}

Algorithm Custom(std::function<absl::StatusOr<OutsideLoss>(const OutsideBatch&)> evaluate, bool entropies = false) {
  PolicyGradientSettings settings;
  settings.surrogate = OutsideLossSettings{.entropies = entropies, .evaluate = std::move(evaluate)};
  return PolicyGradient(settings);
}

// Off-policy, so that clips matter: the same batch to both.
TEST(OutsideLossTest, GrpoByDerivativesIsGrpo) {
  PolicyGradientSettings grpo;
  grpo.aggregation = Aggregation::kSequenceMean;
  std::vector<at::Tensor> gradients;
  std::vector<double> losses;
  std::vector<TrainingSequence> batch;
  for (const Algorithm& algorithm : {PolicyGradient(grpo), Custom(GrpoByHand)}) {
    TrainerSettings settings = Settings();
    settings.microbatch_tokens = 40;
    auto trainer = Make(settings, algorithm);
    if (batch.empty()) {
      batch = OnPolicy(*trainer, 5, 3);
      for (size_t i = 0; i < batch.size(); ++i) {
        for (size_t t = 0; t < batch[i].behaviour_logprobs.size(); ++t) {
          batch[i].behaviour_logprobs[t] += 0.3f * static_cast<float>(std::sin(static_cast<double>(7 * i + t)));
        }
      }
    }
    auto pass = trainer->ForwardBackward(batch);
    ASSERT_TRUE(pass.ok()) << pass.status();
    losses.push_back(Find(pass->metrics, "loss"));
    if (losses.size() == 2) {
      EXPECT_EQ(Find(pass->metrics, "mine"), 7);
    }
    ASSERT_TRUE(trainer->OptimStep(std::nullopt).ok());
    gradients.push_back(trainer->GatherArenas()->moment1);
  }
  EXPECT_NEAR(losses[0], losses[1], 1e-6);
  const double scale = gradients[0].abs().max().item<double>();
  ASSERT_GT(scale, 0);
  EXPECT_LE((gradients[0] - gradients[1]).abs().max().item<double>(), 1e-6 * scale);
}

// d/dtheta of a coefficient times the mean entropy, which our own bonus computes too.
TEST(OutsideLossTest, EntropiesHaveDerivativesToo) {
  auto evaluate = [](const OutsideBatch& batch) {
    OutsideLoss answer = GrpoByHand(batch);
    double targets = 0;
    for (const auto& row : batch.entropies) targets += static_cast<double>(row.size());
    for (const auto& row : batch.entropies) {
      for (float entropy : row) EXPECT_GT(entropy, 0);
      answer.entropy_gradients.emplace_back(row.size(), static_cast<float>(-0.5 / targets));
    }
    for (auto& row : answer.logprob_gradients) std::fill(row.begin(), row.end(), 0.0f);
    return answer;
  };
  PolicyGradientSettings plain;
  plain.entropy_coefficient = 0.5;
  plain.aggregation = Aggregation::kTokenMean;
  std::vector<at::Tensor> gradients;
  std::vector<TrainingSequence> batch;
  for (const Algorithm& algorithm : {PolicyGradient(plain), Custom(evaluate, /*entropies=*/true)}) {
    auto trainer = Make(Settings(), algorithm);
    if (batch.empty()) {
      batch = OnPolicy(*trainer, 4, 3);
      for (TrainingSequence& s : batch) s.reward = 1;  // advantages are 0: only the entropy is left
    }
    ASSERT_TRUE(trainer->ForwardBackward(batch).ok());
    ASSERT_TRUE(trainer->OptimStep(std::nullopt).ok());
    gradients.push_back(trainer->GatherArenas()->moment1);
  }
  const double scale = gradients[0].abs().max().item<double>();
  ASSERT_GT(scale, 0);
  EXPECT_LE((gradients[0] - gradients[1]).abs().max().item<double>(), 1e-5 * scale);
}

TEST(OutsideLossTest, AnswersThatMakeNoSenseAreNamedAndChangeNothing) {
  std::string wrong;
  auto evaluate = [&wrong](const OutsideBatch& batch) -> absl::StatusOr<OutsideLoss> {
    OutsideLoss answer = GrpoByHand(batch);
    if (wrong == "sequences") answer.logprob_gradients.pop_back();
    if (wrong == "targets") answer.logprob_gradients[1].push_back(0);
    if (wrong == "nan") answer.logprob_gradients[1][0] = std::nanf("");
    if (wrong == "loss") answer.loss = INFINITY;
    if (wrong == "entropies") answer.entropy_gradients.assign(batch.sequences.size(), {1});
    if (wrong == "status") return absl::AbortedError("the loss service 127.0.0.1:1 gave no answer within 60 s");
    return answer;
  };
  auto trainer = Make(Settings(), Custom(evaluate));
  auto batch = OnPolicy(*trainer, 4, 3);
  const at::Tensor before = trainer->compute().clone();
  for (const auto& [what, message] : std::vector<std::pair<std::string, std::string>>{
           {"sequences", "gave logprob derivatives of 11 sequences, want 12"},
           {"targets", " logprob derivatives for the "},
           {"nan", "gave nan among the logprob derivatives of rollout " + batch[1].id + ", target 0"},
           {"loss", "gave the loss inf"},
           {"entropies", "gave entropy derivatives, and service.entropies is false"},
           {"status", "gave no answer within 60 s"}}) {
    wrong = what;
    absl::Status status = trainer->Update(batch).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kAborted) << what;
    EXPECT_THAT(std::string(status.message()), HasSubstr(message));
    EXPECT_TRUE(at::equal(trainer->compute(), before)) << what;
  }
  wrong = "";
  EXPECT_TRUE(trainer->Update(batch).ok());
}

}  // namespace
}  // namespace rein::trainer

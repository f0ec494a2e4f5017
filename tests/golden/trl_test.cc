// Whole updates beside TRL's trainers: the same model, the same completions, the loss and the gradient norm of every
// optimizer step. tests/golden/make_trl_goldens.py tells how trl_updates.json was made.

#include <cmath>
#include <fstream>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "trainer/algorithms/policy_gradient.h"
#include "trainer/policy_trainer.h"

namespace rein::trainer {
namespace {

using Json = nlohmann::json;

constexpr double kTolerance = 1e-4;

Json ReadGolden() {
  std::ifstream file("tests/golden/trl_updates.json");
  return Json::parse(file);
}

std::vector<TrainingSequence> SequencesOf(const Json& line) {
  std::vector<TrainingSequence> sequences;
  for (const Json& row : line["sequences"]) {
    TrainingSequence& s = sequences.emplace_back();
    s.id = std::to_string(sequences.size());
    s.token_ids = row["tokens"].get<std::vector<int64_t>>();
    s.loss_mask = row["mask"].get<std::vector<uint8_t>>();
    s.group = row.value("group", 0u);
    s.reward = row.value("reward", 0.0);
  }
  return sequences;
}

double Find(const std::vector<Metric>& metrics, const std::string& name) {
  for (const Metric& m : metrics) {
    if (m.name == name) return m.value;
  }
  ADD_FAILURE() << "no metric " << name;
  return NAN;
}

std::unique_ptr<PolicyTrainer> MakeTrainer(const Json& golden, const Algorithm& algorithm, int64_t microbatch_tokens) {
  static auto& group = *parallel::SingleProcess().release();
  TrainerSettings s;
  s.model_path = "tests/golden/models/" + golden["model"].get<std::string>();
  s.microbatch_tokens = microbatch_tokens;
  s.schedule.peak = golden["learning_rate"];
  s.adamw.beta2 = golden["beta2"];
  s.adamw.epsilon = golden["epsilon"];
  s.max_grad_norm = golden["max_grad_norm"];
  auto trainer = PolicyTrainer::Create(s, algorithm, group);
  EXPECT_TRUE(trainer.ok()) << trainer.status();
  return *std::move(trainer);
}

// TRL takes two steps on each batch: the log-probs that sampled are those before the first.
void ExpectSameUpdates(const std::string& name, const Algorithm& algorithm, int64_t microbatch_tokens) {
  static const Json& golden = *new Json(ReadGolden());
  auto trainer = MakeTrainer(golden, algorithm, microbatch_tokens);
  const Json& lines = golden["cases"].at(name);
  ASSERT_EQ(lines.size(), 6u);
  std::vector<std::vector<float>> sampled;
  for (size_t step = 0; step < lines.size(); ++step) {
    std::vector<TrainingSequence> batch = SequencesOf(lines[step]);
    if (algorithm.needs_behaviour) {
      if (step == 0 || lines[step]["sequences"] != lines[step - 1]["sequences"]) {
        auto scored = trainer->Score(batch);
        ASSERT_TRUE(scored.ok()) << scored.status();
        sampled = *std::move(scored);
      }
      for (size_t i = 0; i < batch.size(); ++i) batch[i].behaviour_logprobs = sampled[i];
    }
    auto result = trainer->Update(batch);
    ASSERT_TRUE(result.ok()) << result.status();
    const double loss = lines[step]["loss"], norm = lines[step]["grad_norm"];
    EXPECT_NEAR(Find(result->metrics, "loss"), loss, kTolerance * std::max(1.0, std::abs(loss))) << name << " " << step;
    EXPECT_NEAR(Find(result->metrics, "grad_norm"), norm, kTolerance * std::max(1.0, norm)) << name << " " << step;
  }
}

PolicyGradientSettings Grpo() {
  PolicyGradientSettings s;
  s.aggregation = Aggregation::kSequenceMean;
  s.advantage.epsilon = 1e-4;  // TRL's
  s.surrogate = ClipRange{0.2, 0.2, {}, {}};
  return s;
}

std::map<std::string, Algorithm> Algorithms() {
  std::map<std::string, Algorithm> algorithms;
  algorithms["grpo"] = PolicyGradient(Grpo());
  PolicyGradientSettings dr_grpo = Grpo();
  dr_grpo.advantage.normalize_by_std = false;
  dr_grpo.aggregation = Aggregation::kSequenceSumFixed;
  dr_grpo.horizon = 8;
  algorithms["dr_grpo"] = PolicyGradient(dr_grpo);
  PolicyGradientSettings dapo = Grpo();
  dapo.aggregation = Aggregation::kTokenMean;
  dapo.surrogate = ClipRange{0.2, 0.28, {}, {}};
  algorithms["dapo"] = PolicyGradient(dapo);
  PolicyGradientSettings gspo = Grpo();
  gspo.ratio = RatioLevel::kSequence;
  gspo.surrogate = ClipRange{3e-4, 4e-4, {}, {}};
  algorithms["gspo"] = PolicyGradient(gspo);
  algorithms["sft"] = Sft(Aggregation::kTokenMean);
  algorithms["dpo"] = DirectPreference({DpoLoss::kSigmoid, 0.1, 0}, /*reference_free=*/false);
  algorithms["reward_model"] = RewardModel(0.01);
  return algorithms;
}

class TrlTest : public testing::TestWithParam<std::string> {};

TEST_P(TrlTest, LossAndGradientNormOfEveryUpdateAgree) {
  const Algorithm algorithm = Algorithms().at(GetParam());
  for (int64_t microbatch_tokens : {100000, 40}) ExpectSameUpdates(GetParam(), algorithm, microbatch_tokens);
}

INSTANTIATE_TEST_SUITE_P(Algorithms, TrlTest,
                         testing::Values("grpo", "dr_grpo", "dapo", "gspo", "sft", "dpo", "reward_model"),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace rein::trainer

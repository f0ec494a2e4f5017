#include "tests/unit/trainer/training_fixture.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>

namespace rein::trainer {

TrainerSettings Settings() {
  TrainerSettings s;
  s.model_path = "tests/golden/models/qwen3";
  s.random_weights = true;
  s.microbatch_tokens = 32;
  s.schedule.peak = 1e-2;
  return s;
}

std::unique_ptr<PolicyTrainer> Make(const TrainerSettings& settings,
                                           const Algorithm& algorithm) {
  static auto& group = *parallel::SingleProcess().release();
  auto trainer = PolicyTrainer::Create(settings, algorithm, group);
  EXPECT_TRUE(trainer.ok()) << trainer.status();
  return *std::move(trainer);
}

std::vector<TrainingSequence> RandomSequences(int groups, int siblings) {
  std::vector<TrainingSequence> batch;
  auto below = [](int64_t n) { return at::randint(n, {1}, at::kLong).item<int64_t>(); };
  for (int g = 0; g < groups; ++g) {
    std::vector<int64_t> prompt;
    for (int t = 0; t < 3 + g % 2; ++t) prompt.push_back(below(61));
    for (int i = 0; i < siblings; ++i) {
      TrainingSequence s;
      s.id = std::to_string(g) + "/" + std::to_string(i);
      s.token_ids = prompt;
      s.loss_mask.assign(prompt.size(), 0);
      for (int64_t left = 1 + below(9); left > 0; --left) {
        s.token_ids.push_back(below(61));
        s.loss_mask.push_back(1);
      }
      s.group = static_cast<uint32_t>(g);
      s.reward = at::rand({1}).item<double>();
      batch.push_back(s);
    }
  }
  return batch;
}

std::vector<TrainingSequence> OnPolicy(PolicyTrainer& trainer, int groups, int siblings) {
  std::vector<TrainingSequence> batch = RandomSequences(groups, siblings);
  auto logprobs = trainer.Score(batch);
  EXPECT_TRUE(logprobs.ok()) << logprobs.status();
  for (size_t i = 0; i < batch.size(); ++i) batch[i].behaviour_logprobs = (*logprobs)[i];
  return batch;
}

double Find(const std::vector<Metric>& metrics, const std::string& name) {
  for (const Metric& m : metrics) {
    if (m.name == name) return m.value;
  }
  ADD_FAILURE() << "no metric " << name;
  return NAN;
}

}  // namespace rein::trainer

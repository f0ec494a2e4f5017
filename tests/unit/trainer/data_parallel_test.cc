// Two and four ranks against one: the same gradient, the same figures, and a checkpoint that resumes under
// another number of ranks.

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <mutex>
#include <string>
#include <vector>

#include "absl/strings/match.h"

#include "tests/unit/common/parallel/rank_threads.h"
#include "trainer/algorithms/policy_gradient.h"
#include "trainer/policy_trainer.h"

namespace rein::trainer {
namespace {

TrainerSettings Settings() {
  TrainerSettings s;
  s.model_path = "tests/golden/models/qwen2";
  s.random_weights = true;
  s.microbatch_tokens = 40;
  // An epsilon far above the gradients: else a step has its full length even where a gradient is only the rounding of a sum.
  s.schedule.peak = s.adamw.epsilon = 1;
  s.token_figures = true;
  return s;
}

std::vector<TrainingSequence> Batch(int seed) {
  std::vector<TrainingSequence> batch;
  for (int i = 0; i < 10; ++i) {
    TrainingSequence s;
    s.id = std::to_string(i);
    for (int t = 0; t < 5 + (i * 7 + seed) % 9; ++t) {
      s.token_ids.push_back((i * 31 + t * 17 + seed) % 61);
      s.loss_mask.push_back(t >= 3);
    }
    s.behaviour_logprobs.assign(static_cast<size_t>(s.targets()), -4.1f);
    s.group = i / 5;
    s.reward = (i * 3 + seed) % 4;
    batch.push_back(s);
  }
  return batch;
}

struct Outcome {
  Arenas arenas;  // after two updates
  std::vector<Metric> metrics;
  std::vector<std::vector<float>> logprobs;
  TokenFigures figures;  // of the second update
};

Outcome Train(parallel::ProcessGroup& group) {
  at::set_num_threads(1);
  auto trainer = *PolicyTrainer::Create(Settings(), PolicyGradient({}), group);
  auto first = trainer->ForwardBackward(Batch(1));
  EXPECT_TRUE(first.ok()) << first.status();
  EXPECT_TRUE(trainer->OptimStep(std::nullopt).ok());
  auto second = trainer->Update(Batch(2));
  EXPECT_TRUE(second.ok()) << second.status();
  return {*trainer->GatherArenas(), second->metrics, first->logprobs, *second->figures};
}

double RelativeError(const at::Tensor& a, const at::Tensor& b) {
  return ((a - b).norm() / b.norm()).item<double>();
}

TEST(DataParallelTest, RanksGiveOneRanksGradientAndFigures) {
  auto single = parallel::SingleProcess();
  const Outcome one = Train(*single);
  for (int size : {2, 4}) {
    std::mutex mutex;
    std::vector<Outcome> all;
    parallel::RunRanks(size, [&](parallel::ProcessGroup& group) {
      Outcome outcome = Train(group);
      std::lock_guard<std::mutex> lock(mutex);
      all.push_back(std::move(outcome));
    });
    ASSERT_EQ(all.size(), static_cast<size_t>(size));
    for (const Outcome& outcome : all) {
      EXPECT_TRUE(at::equal(outcome.arenas.master, all[0].arenas.master)) << "ranks differ";
      EXPECT_LE(RelativeError(outcome.arenas.moment1, one.arenas.moment1), 1e-6);
      EXPECT_LE(RelativeError(outcome.arenas.master, one.arenas.master), 1e-5);
      for (size_t i = 0; i < one.metrics.size(); ++i) {
        EXPECT_EQ(outcome.metrics[i].name, one.metrics[i].name);
        EXPECT_NEAR(outcome.metrics[i].value, one.metrics[i].value, 1e-4 * (1 + std::abs(one.metrics[i].value)))
            << one.metrics[i].name;
      }
      for (size_t i = 0; i < one.logprobs.size(); ++i) {
        ASSERT_EQ(outcome.logprobs[i].size(), one.logprobs[i].size());
        EXPECT_NEAR(outcome.logprobs[i][0], one.logprobs[i][0], 1e-5);
      }
      for (size_t i = 0; i < one.figures.logprobs.size(); ++i) {  // every rank has those of all
        ASSERT_EQ(outcome.figures.logprobs[i].size(), one.figures.logprobs[i].size());
        ASSERT_EQ(outcome.figures.entropies[i].size(), one.figures.entropies[i].size());
        for (size_t t = 0; t < one.figures.logprobs[i].size(); ++t) {
          EXPECT_NEAR(outcome.figures.logprobs[i][t], one.figures.logprobs[i][t], 1e-4);
          EXPECT_NEAR(outcome.figures.entropies[i][t], one.figures.entropies[i][t], 1e-4);
        }
      }
    }
  }
}

TEST(DataParallelTest, ACheckpointResumesUnderAnotherNumberOfRanks) {
  auto single = parallel::SingleProcess();
  const Outcome before = Train(*single);
  auto alone = *PolicyTrainer::Create(Settings(), PolicyGradient({}), *single);
  ASSERT_TRUE(alone->RestoreArenas(before.arenas, {2, 2}).ok());
  ASSERT_TRUE(alone->Update(Batch(3)).ok());
  parallel::RunRanks(2, [&](parallel::ProcessGroup& group) {
    at::set_num_threads(1);
    auto trainer = *PolicyTrainer::Create(Settings(), PolicyGradient({}), group);
    ASSERT_TRUE(trainer->RestoreArenas(before.arenas, {2, 2}).ok());
    EXPECT_TRUE(at::equal(trainer->GatherArenas()->moment2, before.arenas.moment2)) << "bits of the optimizer";
    ASSERT_TRUE(trainer->Update(Batch(3)).ok());
    EXPECT_LE(RelativeError(trainer->compute(), alone->compute()), 1e-5);
  });
}

// In the second minibatch, with the first one's step taken: the loss of one sequence, on one of the ranks, overflows.
TEST(DataParallelTest, WhenOneRankGivesUpAllDo) {
  PolicyGradientSettings grpo;
  grpo.minibatches = 2;
  grpo.advantage.kind = AdvantageKind::kRewardToGo;
  std::vector<TrainingSequence> batch = Batch(1);
  batch[5].behaviour_logprobs.assign(batch[5].behaviour_logprobs.size(), -1000);
  batch[5].reward = -3e38;  // with a ratio of e^20, which nothing clips where the advantage is negative
  std::mutex mutex;
  std::vector<std::string> said;
  parallel::RunRanks(2, [&](parallel::ProcessGroup& group) {
    at::set_num_threads(1);
    auto trainer = *PolicyTrainer::Create(Settings(), PolicyGradient(grpo), group);
    at::Tensor before = trainer->compute().clone();
    absl::Status status = trainer->Update(batch).status();
    EXPECT_TRUE(absl::IsAborted(status)) << status;
    EXPECT_TRUE(at::equal(trainer->compute(), before));
    EXPECT_EQ(trainer->progress().optimizer_steps, 0);
    std::lock_guard<std::mutex> lock(mutex);
    said.emplace_back(status.message());
  });
  ASSERT_EQ(said.size(), 2u);
  EXPECT_EQ(absl::StrContains(said[0], "loss is not finite: inf") + absl::StrContains(said[1], "loss is not finite: inf"), 1)
      << said[0] << "\n" << said[1];
}

}  // namespace
}  // namespace rein::trainer

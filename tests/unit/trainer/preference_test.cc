// Preference optimisation and reward models as whole Updates.

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <limits>

#include "tests/unit/trainer/training_fixture.h"
#include "trainer/trainer_checkpoint.h"

namespace rein::trainer {
namespace {

using testing::HasSubstr;

// Pairs whose chosen completions hold low token ids, the rejected ones high ids.
std::vector<TrainingSequence> Pairs(int count) {
  std::vector<TrainingSequence> batch = RandomSequences(count, 2);
  for (size_t i = 0; i < batch.size(); ++i) {
    TrainingSequence& s = batch[i];
    s.reward = 0;
    const TrainingSequence& chosen = batch[i & ~size_t{1}];
    for (size_t t = 0; t < s.token_ids.size(); ++t) {
      if (s.loss_mask[t] == 0) {
        s.token_ids[t] = chosen.token_ids[t];
      } else {
        s.token_ids[t] = s.token_ids[t] % 5 + (i % 2 == 0 ? 10 : 40);
      }
    }
  }
  return batch;
}

void ExpectLearnsToPrefer(const Algorithm& algorithm, const std::string& accuracy) {
  auto trainer = Make(Settings(), algorithm);
  const std::vector<TrainingSequence> batch = Pairs(8);  // fresh ones would make the last accuracy a draw
  double first = 0, last = 0, first_accuracy = 0, last_accuracy = 0;
  for (int i = 0; i < 25; ++i) {
    auto result = trainer->Update(batch);
    ASSERT_TRUE(result.ok()) << result.status();
    last = Find(result->metrics, "loss");
    last_accuracy = Find(result->metrics, accuracy);
    if (i == 0) {
      first = last;
      first_accuracy = last_accuracy;
    }
  }
  EXPECT_LT(last, first) << algorithm.name;
  EXPECT_GE(last_accuracy, 0.95) << algorithm.name << " began with " << first_accuracy;
}

TEST(PreferenceTest, EveryLossLearnsToPrefer) {
  ExpectLearnsToPrefer(DirectPreference({}, false), "accuracy");
  ExpectLearnsToPrefer(DirectPreference({DpoLoss::kIpo, 0.1, 0}, false), "accuracy");
  ExpectLearnsToPrefer(DirectPreference({DpoLoss::kHinge, 0.1, 0}, true), "accuracy");
  ExpectLearnsToPrefer(SimplePreference({}), "accuracy");
  ExpectLearnsToPrefer(OddsRatioPreference(0.5), "accuracy");
  ExpectLearnsToPrefer(RewardModel(0.01), "accuracy");
}

TEST(PreferenceTest, TheFirstLossOfDpoIsLnTwo) {
  auto trainer = Make(Settings(), DirectPreference({}, false));
  auto result = trainer->Update(Pairs(6));
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_NEAR(Find(result->metrics, "loss"), std::log(2.0), 1e-6);
  EXPECT_NEAR(Find(result->metrics, "chosen_reward"), 0, 1e-6);
}

TEST(PreferenceTest, PairsStayTogetherWhateverTheMicrobatches) {
  for (const Algorithm& algorithm : {DirectPreference({}, false), RewardModel(0)}) {
    std::vector<at::Tensor> moments;
    const auto batch = Pairs(7);
    for (int64_t budget : {16, 40, 100000}) {
      TrainerSettings settings = Settings();
      settings.microbatch_tokens = budget;
      auto trainer = Make(settings, algorithm);
      auto result = trainer->Update(batch);
      ASSERT_TRUE(result.ok()) << result.status();
      moments.push_back(trainer->GatherArenas()->moment1);
    }
    const double scale = moments[0].abs().max().item<double>();
    EXPECT_GT(scale, 0);
    for (const at::Tensor& m : moments) {
      EXPECT_LE((m - moments[0]).abs().max().item<double>(), 1e-6 * scale + 1e-9) << algorithm.name;
    }
  }
}

TEST(PreferenceTest, KtoRaisesTheRewardOfGoodAnswersAboveThatOfBadOnes) {
  auto trainer = Make(Settings(), MarkedPreference({}));
  std::vector<Metric> metrics;
  for (int i = 0; i < 15; ++i) {
    auto batch = Pairs(8);
    for (size_t k = 0; k < batch.size(); ++k) batch[k].reward = k % 2 == 0 ? 1 : 0;
    auto result = trainer->Update(batch);
    ASSERT_TRUE(result.ok()) << result.status();
    metrics = result->metrics;
    if (i > 0) continue;
    EXPECT_NEAR(Find(metrics, "mismatch_kl"), 0, 1e-6);
    EXPECT_NEAR(Find(metrics, "loss"), 0.5, 1e-6);  // 1 - sigmoid(0)
  }
  EXPECT_GT(Find(metrics, "good_reward"), Find(metrics, "bad_reward") + 0.5);
}

TEST(PreferenceTest, AMarginAsksForMore) {
  auto batch = Pairs(6);
  auto plain = Make(Settings(), RewardModel(0))->Update(batch);
  for (size_t i = 0; i < batch.size(); i += 2) batch[i].reward = 3;
  auto margin = Make(Settings(), RewardModel(0))->Update(batch);
  ASSERT_TRUE(plain.ok() && margin.ok());
  EXPECT_GT(Find(margin->metrics, "loss"), Find(plain->metrics, "loss") + 1);
}

// Labels of every target: 1 where the token's id is low.
std::vector<TrainingSequence> Steps(int count) {
  std::vector<TrainingSequence> batch = RandomSequences(count, 1);
  for (TrainingSequence& s : batch) {
    for (size_t t = 0; t < s.token_ids.size(); ++t) {
      if (s.loss_mask[t] == 1) s.target_rewards.push_back(s.token_ids[t] % 2 == 0 ? 1 : 0);
    }
  }
  return batch;
}

TEST(RewardModelTest, LearnsWhichStepsAreRight) {
  auto trainer = Make(Settings(), ProcessRewardModel());
  const auto batch = Steps(16);
  std::vector<Metric> first, last;
  for (int i = 0; i < 40; ++i) {
    auto result = trainer->Update(batch);
    ASSERT_TRUE(result.ok()) << result.status();
    (i == 0 ? first : last) = result->metrics;
  }
  EXPECT_NEAR(Find(first, "loss"), std::log(2.0), 0.1) << "random weights say little";
  EXPECT_GE(Find(last, "accuracy"), 0.95);
  EXPECT_LT(Find(last, "loss"), 0.3);
}

// A step is read at its own last token: what stands behind it does not change its score.
TEST(RewardModelTest, AStepIsJudgedByWhatCameBefore) {
  auto trainer = Make(Settings(), ProcessRewardModel());
  auto batch = Steps(12);
  for (int i = 0; i < 5; ++i) ASSERT_TRUE(trainer->Update(batch).ok());
  std::vector<TrainingSequence> whole, cut;
  for (const TrainingSequence& s : batch) {
    if (s.targets() < 2) continue;
    TrainingSequence first = s;
    first.loss_mask.assign(s.loss_mask.size(), 0);
    const auto at = std::find(s.loss_mask.begin(), s.loss_mask.end(), 1) - s.loss_mask.begin();
    first.loss_mask[static_cast<size_t>(at)] = 1;
    first.target_rewards = {s.target_rewards[0]};
    whole.push_back(first);
    first.token_ids.resize(static_cast<size_t>(at) + 1);
    first.loss_mask.resize(static_cast<size_t>(at) + 1);
    cut.push_back(first);
  }
  ASSERT_FALSE(whole.empty());
  EXPECT_NEAR(Find(trainer->Measure(whole)->metrics, "loss"), Find(trainer->Measure(cut)->metrics, "loss"), 1e-6);
}

TEST(RewardModelTest, LearnsScores) {
  auto trainer = Make(Settings(), ScoreModel());
  auto batch = RandomSequences(12, 1);
  double squares = 0;
  for (size_t i = 0; i < batch.size(); ++i) {
    batch[i].reward = i % 3 - 0.5;
    squares += batch[i].reward * batch[i].reward / static_cast<double>(batch.size());
  }
  std::vector<Metric> first, last;
  for (int i = 0; i < 60; ++i) {
    auto result = trainer->Update(batch);
    ASSERT_TRUE(result.ok()) << result.status();
    (i == 0 ? first : last) = result->metrics;
  }
  EXPECT_NEAR(Find(first, "loss"), squares, 0.5) << "random weights say little";
  EXPECT_LT(Find(last, "loss"), 0.1 * squares);
}

// What an Update would report, and nothing is changed; whatever the microbatches. AdamW's epsilon is far above the gradients: with
// a small one the first step has the full length even where a gradient is nothing but the rounding of a sum, which depends on the
// microbatches. Then losses of a few units come of sums of tens of log-probs: some float epsilons.
TEST(MeasureTest, TellsTheLossOfHeldOutLines) {
  const auto pairs = Pairs(7);
  const auto steps = Steps(9);
  auto marked = Pairs(6);
  for (size_t k = 0; k < marked.size(); ++k) marked[k].reward = k % 2 == 0 ? 1 : 0;
  const std::vector<std::tuple<Algorithm, std::vector<TrainingSequence>, double>> cases = {
      {RewardModel(0.01), pairs, 14}, {DirectPreference({}, false), pairs, 14}, {MarkedPreference({}), marked, 12},
      {OddsRatioPreference(0.5), pairs, 14}, {ProcessRewardModel(), steps, 0}};
  const double rounding = 8 * std::numeric_limits<float>::epsilon();
  for (const auto& [algorithm, batch, weight] : cases) {
    std::vector<double> losses;
    for (int64_t budget : {16, 100000}) {
      TrainerSettings settings = Settings();
      settings.microbatch_tokens = budget;
      settings.schedule.peak = settings.adamw.epsilon = 1;
      auto trainer = Make(settings, algorithm);
      auto first = trainer->Update(batch);
      ASSERT_TRUE(first.ok()) << first.status();
      const at::Tensor before = trainer->compute().clone();
      auto measured = trainer->Measure(batch);
      ASSERT_TRUE(measured.ok()) << measured.status();
      EXPECT_TRUE(at::equal(trainer->compute(), before));
      if (weight > 0) {
        EXPECT_EQ(measured->weight, weight) << algorithm.name;
      }
      losses.push_back(Find(measured->metrics, "loss"));
      EXPECT_NEAR(losses.back(), Find(trainer->Update(batch)->metrics, "loss"), rounding * (1 + losses.back())) << algorithm.name;
      EXPECT_GT(std::abs(losses.back() - Find(first->metrics, "loss")), 1e-3) << algorithm.name << ": the step moved nothing";
    }
    EXPECT_NEAR(losses[0], losses[1], rounding * (1 + losses[0])) << algorithm.name;
  }
}

TEST(RewardModelTest, RefusesStepsWithoutLabels) {
  auto trainer = Make(Settings(), ProcessRewardModel());
  auto batch = Steps(2);
  batch[1].target_rewards.push_back(1);
  EXPECT_THAT(std::string(trainer->Update(batch).status().message()), HasSubstr("target_rewards for"));
  batch = Steps(2);
  batch[0].target_rewards[0] = 2;
  EXPECT_THAT(std::string(trainer->Update(batch).status().message()),
              HasSubstr("has a step labelled 2, want 0 to 1"));
}

TEST(PreferenceTest, RefusesWhatIsNoPair) {
  auto trainer = Make(Settings(), DirectPreference({}, false));
  auto batch = Pairs(2);
  batch.pop_back();
  EXPECT_THAT(std::string(trainer->Update(batch).status().message()), HasSubstr("has no partner"));
  batch = Pairs(2);
  batch[1].group = 5;
  EXPECT_THAT(std::string(trainer->Update(batch).status().message()),
              HasSubstr("sequence 0 (0/0): has no partner"));
}

TEST(PreferenceTest, AResumedJobKeepsTheReferenceItBeganWith) {
  const std::string path = testing::TempDir() + "/dpo_checkpoint";
  std::filesystem::remove_all(path);
  auto a = Make(Settings(), DirectPreference({}, false));
  ASSERT_TRUE(a->Update(Pairs(6)).ok());
  ASSERT_TRUE(SaveCheckpoint(*a, path, {}).ok());
  auto b = Make(Settings(), DirectPreference({}, false));
  ASSERT_TRUE(RestoreCheckpoint(*b, path).ok());
  const auto batch = Pairs(6);
  auto from_a = a->Update(batch), from_b = b->Update(batch);
  ASSERT_TRUE(from_a.ok() && from_b.ok());
  EXPECT_EQ(Find(from_a->metrics, "loss"), Find(from_b->metrics, "loss"));
  EXPECT_TRUE(at::equal(a->compute(), b->compute()));
}

// The exported folder is a reward model that loads again, as itself and not as a policy.
TEST(PreferenceTest, ARewardModelIsWrittenAsOne) {
  const std::string path = testing::TempDir() + "/reward_model";
  std::filesystem::remove_all(path);
  auto trainer = Make(Settings(), RewardModel(0));
  ASSERT_TRUE(trainer->Update(Pairs(4)).ok());
  ASSERT_TRUE(SaveCheckpoint(*trainer, path, {.export_only = true}).ok());
  auto model = models::DescribeModel(path);
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_TRUE(model->spec.scalar_head);
  EXPECT_THAT(model->config_json, HasSubstr("Qwen3ForSequenceClassification"));
  TrainerSettings again = Settings();
  again.model_path = path;
  again.random_weights = false;
  auto loaded = Make(again, RewardModel(0));
  EXPECT_TRUE(at::equal(loaded->compute(), trainer->compute()));
  static auto& group = *parallel::SingleProcess().release();
  EXPECT_THAT(std::string(PolicyTrainer::Create(again, Sft(Aggregation::kTokenMean), group).status().message()),
              HasSubstr("is a reward model"));
}

}  // namespace
}  // namespace rein::trainer

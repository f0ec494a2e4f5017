// Every model family is trained: it learns one sequence by heart, its log-probs are those of the scorer, and the
// checkpoint's folder loads again.

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>

#include "common/checkpoint/safetensors.h"
#include "common/models/model_folder.h"
#include "common/parallel/process_group.h"
#include "common/policy/policy_slots.h"
#include "common/policy/sequence_scorer.h"
#include "trainer/policy_trainer.h"
#include "tests/golden/golden_folders.h"

namespace rein::trainer {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

class FamilyTrainingTest : public testing::TestWithParam<std::string> {};

TEST_P(FamilyTrainingTest, LearnsSavesAndScoresAlike) {
  auto group = parallel::SingleProcess();
  TrainerSettings settings;
  settings.model_path = "tests/golden/models/" + GetParam();
  settings.schedule.peak = 1e-2;
  settings.recompute = true;
  auto made = PolicyTrainer::Create(settings, Sft(Aggregation::kTokenMean), *group);
  ASSERT_TRUE(made.ok()) << made.status();
  PolicyTrainer& trainer = **made;
  TrainingSequence sequence{.id = "x", .token_ids = {5, 9, 7, 8, 4, 30, 41, 22, 9}};
  sequence.loss_mask = {0, 0, 1, 1, 1, 1, 1, 1, 1};
  double first = 0, last = 0;
  std::map<std::string, double> metrics;
  for (int i = 0; i < 30; ++i) {
    auto result = trainer.Update({sequence, sequence});
    ASSERT_TRUE(result.ok()) << result.status();
    last = result->metrics[0].value;
    if (i == 0) first = last;
    for (const Metric& metric : result->metrics) metrics[metric.name] = metric.value;
  }
  const models::ExpertSpec& experts = trainer.model().spec.experts;
  EXPECT_EQ(metrics.count("router_entropy") > 0, experts.routing.experts > 0);
  EXPECT_EQ(metrics.count("router_balance_loss") > 0, experts.balance > 0);
  if (experts.routing.experts > 0) {
    EXPECT_GE(metrics["router_entropy"], 0);
    EXPECT_LE(metrics["router_entropy"], std::log(experts.routing.experts));
    EXPECT_GE(metrics["router_highest_load"], 1);
    EXPECT_LE(metrics["router_lowest_load"], 1);
    EXPECT_EQ(metrics["router_idle_experts"] > 0, metrics["router_lowest_load"] == 0);
    EXPECT_EQ(metrics["router_balance_loss"] > 0, experts.balance > 0);
  }
  EXPECT_GT(first, 1);
  EXPECT_LT(last, 0.25 * first);

  const std::string out = testing::TempDir() + "/trained_" + GetParam();
  ASSERT_TRUE(models::SaveModelFolder(out, trainer.model(), trainer.registry(), trainer.compute(), "").ok());
  auto description = models::DescribeModel(out);
  ASSERT_TRUE(description.ok()) << description.status();
  auto slots = *policy::PolicySlots::Create(description->spec, {});
  absl::Status loaded = slots->LoadFolder(out, *description);
  ASSERT_TRUE(loaded.ok()) << loaded;
  const std::vector<uint32_t> tokens(sequence.token_ids.begin(), sequence.token_ids.end());
  auto scored = *policy::ScoreSequences(slots->decoder(), {{tokens, 2}}, 1.0);
  auto trained = *trainer.Score({sequence});
  ASSERT_EQ(scored[0].size(), trained[0].size());
  for (size_t i = 0; i < scored[0].size(); ++i) EXPECT_NEAR(scored[0][i], trained[0][i], 1e-5) << i;
  fs::remove_all(out);
}

// The weights after three steps, and the loss before each, of torch.optim.AdamW on the public implementation. AdamW's
// first steps are the sign of the gradient, whatever its size: elements whose gradients come near 0 say nothing.
TEST_P(FamilyTrainingTest, ThreeUpdatesMatchTorch) {
  const std::string folder = "tests/golden/models/" + GetParam();
  const json golden = json::parse(std::ifstream(folder + "/adamw.json"));
  std::vector<TrainingSequence> sequences;
  const json passes = json::parse(std::ifstream(folder + "/golden.json"));
  for (const auto& row : passes["tokens"]) {
    TrainingSequence& s = sequences.emplace_back();
    s.id = std::to_string(sequences.size());
    s.token_ids = row.get<std::vector<int64_t>>();
    s.loss_mask.assign(s.token_ids.size(), 1);
    s.loss_mask[0] = 0;
  }
  auto group = parallel::SingleProcess();
  TrainerSettings settings;
  settings.model_path = folder;
  settings.schedule.peak = 1e-3;
  settings.adamw = {.beta1 = 0.9, .beta2 = 0.95, .epsilon = 1e-8, .weight_decay = 0};
  settings.max_grad_norm = 0;
  auto trainer = *PolicyTrainer::Create(settings, Sft(Aggregation::kTokenMean), *group);
  for (const auto& wanted : golden["losses"]) {
    auto result = trainer->Update(sequences);
    ASSERT_TRUE(result.ok()) << result.status();
    double loss = 0;
    for (const Metric& m : result->metrics) {
      if (m.name == "loss" || m.name == "router_balance_loss") loss += m.value;
    }
    EXPECT_NEAR(loss, wanted.get<double>(), 2e-5);
  }
  const std::string out = testing::TempDir() + "/updated_" + GetParam();
  ASSERT_TRUE(models::SaveModelFolder(out, trainer->model(), trainer->registry(), trainer->compute(), "").ok());
  auto file = *checkpoint::SafetensorsFile::Open(out + "/model.safetensors");
  size_t compared = 0;
  double furthest = 0;
  for (const auto& [name, values] : golden["values"].items()) {
    const checkpoint::TensorView* view = file->Find(name);
    ASSERT_NE(view, nullptr) << name;
    const auto* own = reinterpret_cast<const float*>(view->data);
    for (size_t i = 0; i < values[0].size(); ++i) {
      const double error = std::abs(own[values[0][i].get<size_t>()] - values[1][i].get<double>());
      EXPECT_LE(error, 1e-5) << name << " at " << values[0][i];
      furthest = std::max(furthest, error);
      ++compared;
    }
  }
  EXPECT_GE(compared, 100u);
  RecordProperty("furthest", std::to_string(furthest));
  fs::remove_all(out);
}

// Random weights begin at the loss of a uniform guess.
TEST_P(FamilyTrainingTest, RandomWeightsBeginNearAUniformGuess) {
  auto group = parallel::SingleProcess();
  TrainerSettings settings;
  settings.model_path = "tests/golden/models/" + GetParam();
  settings.random_weights = true;
  auto made = PolicyTrainer::Create(settings, Sft(Aggregation::kTokenMean), *group);
  ASSERT_TRUE(made.ok()) << made.status();
  TrainingSequence sequence{.id = "x", .token_ids = {5, 9, 7, 8, 4, 30, 41, 22, 9}};
  sequence.loss_mask = {0, 1, 1, 1, 1, 1, 1, 1, 1};
  auto scored = (*made)->Score({sequence});
  ASSERT_TRUE(scored.ok()) << scored.status();
  double sum = 0;
  for (float logprob : (*scored)[0]) sum -= logprob;
  // Rows of length 1 give logits of deviation 1 whatever the weights are.
  EXPECT_NEAR(sum / 8, std::log(61.0), (*made)->model().spec.normalised_head ? 2 : 0.8);
}

INSTANTIATE_TEST_SUITE_P(Families, FamilyTrainingTest, testing::ValuesIn(GoldenFolders()),
                         [](const auto& i) { return i.param; });

}  // namespace
}  // namespace rein::trainer

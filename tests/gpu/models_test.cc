// Whole models on the GPU against the goldens of `transformers`, and a trainer that learns there.

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "common/models/decoder.h"
#include "common/models/model_folder.h"
#include "tests/gpu/random_policy.h"
#include "trainer/policy_trainer.h"

namespace rein::gpu {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

double LogitsError(const std::string& folder, at::ScalarType type, const std::vector<int64_t>& tokens,
                   const at::Tensor& wanted) {
  auto description = *models::DescribeModel(folder);
  auto registry = *weights::Registry::Create(models::DecoderParameters(description.spec));
  at::Tensor arena = at::zeros({registry.arena_elements()}, at::TensorOptions(at::kCUDA).dtype(type));
  EXPECT_TRUE(models::LoadWeights(folder, description, registry, arena).ok());
  auto decoder = *models::Decoder::Create(description.spec, registry, arena);
  const auto length = static_cast<int64_t>(tokens.size());
  at::Tensor hidden = decoder->Hidden(at::tensor(tokens, at::kLong).to(at::kCUDA),
                                      nn::PackedSequences({length / 2, length / 2}, at::kCUDA));
  return (decoder->Logits(hidden).to(at::kCPU, at::kFloat).view(-1) - wanted).abs().max().item<double>();
}

TEST(ModelsGpuTest, LogitsMatchTransformers) {
  for (const auto& entry : fs::directory_iterator("tests/golden/models")) {
    json golden = json::parse(std::ifstream(entry.path() / "golden.json"));
    std::vector<int64_t> tokens;
    for (const json& row : golden["tokens"]) {
      for (int64_t id : row) tokens.push_back(id);
    }
    std::vector<double> logits;
    for (const json& row : golden["logits"]) {
      for (double x : row) logits.push_back(x);
    }
    at::Tensor wanted = at::tensor(logits, at::kFloat);
    EXPECT_LE(LogitsError(entry.path(), at::kFloat, tokens, wanted), 1e-4) << entry.path();
    EXPECT_LE(LogitsError(entry.path(), at::kBFloat16, tokens, wanted), 0.05 * wanted.abs().max().item<double>())
        << entry.path();
  }
}

TEST(PolicyTrainerGpuTest, LearnsInBfloat16AndRestores) {
  auto group = parallel::SingleProcess();
  trainer::TrainerSettings settings;
  settings.model_path = "configs/models/digits";
  settings.random_weights = true;
  settings.device = "cuda:0";
  settings.schedule.peak = 3e-3;
  auto made = trainer::PolicyTrainer::Create(settings, trainer::Sft(trainer::Aggregation::kTokenMean), *group);
  ASSERT_TRUE(made.ok()) << made.status();
  trainer::PolicyTrainer& t = **made;
  EXPECT_EQ(t.compute().scalar_type(), at::kBFloat16);
  trainer::TrainingSequence s{.id = "x", .token_ids = {5, 6, 7, 8, 9}, .loss_mask = {0, 0, 1, 1, 1}};
  double loss = 0;
  for (int i = 0; i < 40; ++i) {
    auto result = t.Update({s, s});
    ASSERT_TRUE(result.ok()) << result.status();
    loss = result->metrics[0].value;
  }
  EXPECT_LT(loss, 0.1);
  auto arenas = *t.GatherArenas();
  at::Tensor before = t.compute().clone();
  ASSERT_TRUE(t.Update({s}).ok());
  EXPECT_FALSE(at::equal(t.compute(), before));
  ASSERT_TRUE(t.RestoreArenas(arenas, t.progress()).ok());
  EXPECT_TRUE(at::equal(t.compute(), before));
}

TEST(PolicyTrainerGpuTest, EqualBatchesGiveEqualBits) {
  trainer::TrainerSettings settings;
  settings.schedule.peak = 1e-3;
  settings.microbatch_tokens = 900;
  const std::string folder = WriteModelFolder(*FindShape("qwen3-0.6b"), 3);
  std::vector<trainer::TrainingSequence> batch;
  for (int64_t s = 0; s < 7; ++s) {
    trainer::TrainingSequence one{.id = std::to_string(s)};
    for (int64_t t = 0; t < 50 + 100 * s; ++t) {
      one.token_ids.push_back((t * 31 + s * 7 + t * t) % 1000);
      one.loss_mask.push_back(t > 20);
    }
    batch.push_back(one);
    for (int sibling = 0; sibling < 3; ++sibling) {
      one.token_ids.back() = sibling;
      one.token_ids.push_back(5);
      one.loss_mask.push_back(1);
      batch.push_back(one);
    }
  }
  at::Tensor first;
  for (int run = 0; run < 2; ++run) {
    RandomPolicy policy(folder, settings, trainer::Sft(trainer::Aggregation::kTokenMean), false);
    for (int update = 0; update < 3; ++update) ASSERT_TRUE(policy.trainer().Update(batch).ok());
    at::Tensor weights = policy.trainer().compute().clone();
    if (run == 0) first = weights;
    EXPECT_TRUE(at::equal(weights, first));
  }
}

}  // namespace
}  // namespace rein::gpu

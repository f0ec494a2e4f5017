// Whole models on the GPU against the goldens of `transformers`, and a trainer that learns there.

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "common/checkpoint/safetensors.h"
#include "common/models/decoder.h"
#include "common/models/model_folder.h"
#include "tests/gpu/random_policy.h"
#include "trainer/policy_trainer.h"

namespace rein::gpu {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

struct OnDevice {
  OnDevice(const std::string& folder, at::ScalarType type)
      : description(*models::DescribeModel(folder)),
        registry(*weights::Registry::Create(models::DecoderParameters(description.spec))),
        arena(at::zeros({registry.arena_elements()}, at::TensorOptions(at::kCUDA).dtype(type))),
        grad(at::zeros({registry.arena_elements()}, at::TensorOptions(at::kCUDA).dtype(at::kFloat))) {
    absl::Status status = models::LoadWeights(folder, description, registry, arena);
    EXPECT_TRUE(status.ok()) << status;
    decoder = *models::Decoder::Create(description.spec, registry, arena, grad);
  }

  models::ModelDescription description;
  weights::Registry registry;
  at::Tensor arena, grad;
  std::unique_ptr<models::Decoder> decoder;
};

struct Golden {
  explicit Golden(const std::string& folder) : golden(json::parse(std::ifstream(folder + "/golden.json"))) {
    std::vector<double> values;
    for (const json& row : golden["tokens"]) {
      for (int64_t id : row) tokens.push_back(id);
    }
    for (const json& row : golden["logits"]) {
      for (double x : row) values.push_back(x);
    }
    logits = at::tensor(values, at::kFloat);
  }
  int64_t length() const { return static_cast<int64_t>(tokens.size()) / 2; }
  nn::SequenceView view() const { return nn::PackedSequences({length(), length()}, at::kCUDA); }
  at::Tensor device_tokens() const { return at::tensor(tokens, at::kLong).to(at::kCUDA); }

  json golden;
  std::vector<int64_t> tokens;
  at::Tensor logits;
};

std::vector<std::string> GoldenFolders() {
  std::vector<std::string> folders;
  for (const auto& entry : fs::directory_iterator("tests/golden/models")) folders.push_back(entry.path());
  return folders;
}

at::Tensor LogitsErrors(const OnDevice& model, const Golden& golden) {
  at::NoGradGuard no_grad;
  at::Tensor hidden = model.decoder->Hidden(golden.device_tokens(), golden.view());
  return (model.decoder->Logits(hidden).to(at::kCPU, at::kFloat).view(-1) - golden.logits).abs();
}

TEST(ModelsGpuTest, LogitsMatchTransformers) {
  for (const std::string& folder : GoldenFolders()) {
    Golden golden(folder);
    EXPECT_LE(LogitsErrors(OnDevice(folder, at::kFloat), golden).max().item<double>(), 1e-4) << folder;
    OnDevice narrow(folder, at::kBFloat16);
    at::Tensor error = LogitsErrors(narrow, golden);
    // Where rounding moves a token to another expert its logits are others: there the mean is held, not the worst.
    const bool routed = narrow.description.spec.experts.routing.experts > 0;
    const double highest = golden.logits.abs().max().item<double>();
    EXPECT_LE((routed ? error.mean() : error.max()).item<double>(), 0.08 * highest) << folder;
  }
}

TEST(ModelsGpuTest, GradientsMatchTransformers) {
  for (const std::string& folder : GoldenFolders()) {
    Golden golden(folder);
    OnDevice model(folder, at::kFloat);
    std::vector<int64_t> source, target;
    for (int64_t i = 0; i + 1 < 2 * golden.length(); ++i) {
      if (i + 1 == golden.length()) continue;
      source.push_back(i);
      target.push_back(golden.tokens[static_cast<size_t>(i) + 1]);
    }
    auto routers = model.decoder->NewRouterRecord();
    at::Tensor hidden = model.decoder->Hidden(golden.device_tokens(), golden.view(), /*recompute=*/false, routers);
    nn::TokenLogprobs out = model.decoder->Logprobs(
        hidden.index_select(0, at::tensor(source, at::kLong).to(at::kCUDA)), at::tensor(target, at::kLong).to(at::kCUDA), 1.0);
    at::Tensor loss = -out.logprob_N.mean();
    const double balance = routers == nullptr ? 0 : routers->BalanceLoss();
    EXPECT_NEAR(loss.item<double>() + balance, golden.golden["loss"].get<double>(), 5e-5) << folder;
    loss.backward();
    const std::string saved = testing::TempDir() + "/gpu_gradients";
    ASSERT_TRUE(models::SaveModelFolder(saved, model.description, model.registry, model.grad, "").ok());
    auto file = *checkpoint::SafetensorsFile::Open(saved + "/model.safetensors");
    for (const auto& [name, wanted] : golden.golden["gradients"].items()) {
      const checkpoint::TensorView* view = file->Find(name);
      ASSERT_NE(view, nullptr) << folder << " " << name;
      at::Tensor g = at::from_blob(const_cast<char*>(view->data), view->shape, at::kFloat).to(at::kDouble);
      const double norm = wanted[0];
      EXPECT_NEAR(g.norm().item<double>(), norm, 5e-4 * norm + 1e-6) << folder << " " << name;
    }
  }
}

// A prompt at once, then a token at a time, through pages of 16 tokens, against the packed pass of the same dtype.
TEST(ModelsGpuTest, PagesGiveWhatOnePassGives) {
  at::NoGradGuard no_grad;
  constexpr int64_t kPage = 16;
  for (const std::string& folder : GoldenFolders()) {
    Golden golden(folder);
    for (at::ScalarType type : {at::kFloat, at::kBFloat16}) {
      OnDevice model(folder, type);
      const int64_t length = golden.length();
      at::Tensor all = golden.device_tokens().narrow(0, 0, length);
      at::Tensor wanted = model.decoder->Hidden(all, nn::PackedSequences({length}, at::kCUDA)).to(at::kFloat);
      auto layers = model.decoder->NewPages(4, kPage);
      at::Tensor pages = at::tensor({2, 3}, at::kInt).view({1, 2}).to(at::kCUDA);
      std::vector<at::Tensor> parts;
      for (int64_t done = 0; done < length;) {
        const int64_t n = done == 0 ? 5 : 1;
        nn::SequenceView step = nn::PackedSequences({n}, at::kCUDA);
        step.position_T = step.position_T + done;
        step.context_B = step.context_B + done;
        nn::PageMap map{.layers = &layers, .page_tokens = kPage, .slot_T = step.position_T + 2 * kPage, .pages_BP = pages,
                        .single_queries = n == 1 ? 1 : 0, .most_chunks = 8};
        nn::PlanDecode(map, step.context_B, model.decoder->spec().num_heads, model.decoder->spec().head_dim);
        step.pages = &map;
        parts.push_back(model.decoder->Hidden(all.narrow(0, done, n), step).to(at::kFloat));
        done += n;
      }
      at::Tensor error = (at::cat(parts, 0) - wanted).abs();
      const double highest = wanted.abs().max().item<double>();
      const bool routed = model.description.spec.experts.routing.experts > 0;
      if (type == at::kFloat) {
        EXPECT_LE(error.max().item<double>(), 5e-4 * highest) << folder;
      } else {
        EXPECT_LE((routed ? error.mean() : error.max()).item<double>(), 0.06 * highest) << folder;
      }
    }
  }
}

// Every family trains in bf16 through the trainer.
TEST(PolicyTrainerGpuTest, EveryFamilyLearns) {
  for (const std::string& folder : GoldenFolders()) {
    auto group = parallel::SingleProcess();
    trainer::TrainerSettings settings;
    settings.model_path = folder;
    settings.device = "cuda:0";
    settings.schedule.peak = 1e-2;
    auto made = trainer::PolicyTrainer::Create(settings, trainer::Sft(trainer::Aggregation::kTokenMean), *group);
    ASSERT_TRUE(made.ok()) << folder << made.status();
    trainer::TrainingSequence s{.id = "x", .token_ids = {5, 9, 7, 8, 4, 30, 41, 22}};
    s.loss_mask = {0, 0, 1, 1, 1, 1, 1, 1};
    double first = 0, last = 0;
    for (int i = 0; i < 40; ++i) {
      auto result = (*made)->Update({s, s});
      ASSERT_TRUE(result.ok()) << folder << result.status();
      last = result->metrics[0].value;
      if (i == 0) first = last;
    }
    EXPECT_LT(last, 0.4 * first) << folder;
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

// Multi-token prediction of DeepSeek-V3 and GLM-4.5 against the reference of tests/golden/make_mtp_goldens.py: losses, and the gradient of
// every tensor of the published layout; what is kept, dropped and refused.

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "absl/strings/match.h"
#include "common/checkpoint/safetensors.h"
#include "common/models/decoder.h"
#include "common/models/lora.h"
#include "common/parallel/process_group.h"
#include "trainer/packed_targets.h"
#include "trainer/policy_trainer.h"

namespace rein::trainer {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using ::testing::HasSubstr;

std::vector<TrainingSequence> Sequences(const json& rows) {
  std::vector<TrainingSequence> sequences;
  for (const auto& row : rows) {
    TrainingSequence& s = sequences.emplace_back();
    s.id = std::to_string(sequences.size());
    s.token_ids = row.get<std::vector<int64_t>>();
    s.loss_mask.assign(s.token_ids.size(), 1);
    s.loss_mask[0] = 0;
  }
  return sequences;
}

TrainerSettings Settings(const std::string& folder, bool mtp) {
  TrainerSettings settings;
  settings.model_path = folder;
  settings.trained.mtp = mtp;
  settings.mtp_loss = mtp ? 0.3 : 0;
  settings.schedule.peak = 1e-2;
  return settings;
}

double Find(const std::vector<Metric>& metrics, const std::string& name) {
  for (const Metric& m : metrics) {
    if (m.name == name) return m.value;
  }
  return -1;
}

class MtpTest : public testing::TestWithParam<std::string> {
 protected:
  std::unique_ptr<PolicyTrainer> Make(const TrainerSettings& settings) {
    auto made = PolicyTrainer::Create(settings, Sft(Aggregation::kTokenMean), *group_);
    EXPECT_TRUE(made.ok()) << made.status();
    return *std::move(made);
  }
  std::string Refusal(const TrainerSettings& settings, const Algorithm& algorithm = Sft(Aggregation::kTokenMean)) {
    return std::string(PolicyTrainer::Create(settings, algorithm, *group_).status().message());
  }

  std::unique_ptr<parallel::ProcessGroup> group_ = parallel::SingleProcess();
  const std::string folder_ = "tests/golden/mtp/" + GetParam();
  const json golden_ = json::parse(std::ifstream(folder_ + "/golden.json"));
  const std::string out_ = testing::TempDir() + "/mtp_saved_" + GetParam();
};

TEST_P(MtpTest, LossesAndGradientsMatchTheReference) {
  models::ModelDescription model = *models::DescribeTrained(folder_, {.mtp = true});
  auto registry = *weights::Registry::Create(models::DecoderParameters(model.spec));
  at::Tensor compute = at::zeros({registry.arena_elements()}), grad = at::zeros({registry.arena_elements()});
  absl::Status loaded = models::LoadWeights(folder_, model, registry, compute);
  ASSERT_TRUE(loaded.ok()) << loaded;
  auto decoder = *models::Decoder::Create(model.spec, registry, compute, grad);
  const std::vector<TrainingSequence> sequences = Sequences(golden_["tokens"]);
  const PackedTargets packed = PackTargets(sequences, {0, 1, 2}, /*share=*/false);
  for (bool recompute : {false, true}) {
    grad.zero_();
    const TargetFigures figures = ForwardTargets(*decoder, packed, 1.0, recompute, {.mtp = true});
    at::Tensor loss = -figures.logprob_N.mean(), ahead = at::zeros({});
    const double targets = static_cast<double>(packed.target.size());
    ASSERT_EQ(figures.ahead.size(), 2u);
    for (const auto& layer : figures.ahead) ahead = ahead - layer.logprob_M.sum() / targets / 2;
    EXPECT_NEAR(loss.item<double>(), golden_["loss"].get<double>(), 2e-5);
    EXPECT_NEAR(ahead.item<double>(), golden_["mtp_loss"].get<double>(), 2e-5);
    (loss + golden_["coefficient"].get<double>() * ahead).backward();
    ASSERT_TRUE(models::SaveModelFolder(out_, model, registry, grad, "").ok());
    auto saved = *checkpoint::SafetensorsFile::Open(out_ + "/model.safetensors");
    for (const auto& [name, figure] : golden_["gradients"].items()) {
      const checkpoint::TensorView* view = saved->Find(name);
      ASSERT_NE(view, nullptr) << name;
      at::Tensor g = at::from_blob(const_cast<char*>(view->data), view->shape, at::kFloat).to(at::kDouble).flatten();
      const double norm = figure[0];
      EXPECT_NEAR(g.norm().item<double>(), norm, 1e-4 * norm + 1e-7) << name;
      EXPECT_NEAR(g.sum().item<double>(), figure[1], 1e-3 * norm + 1e-6) << name;
      EXPECT_NEAR(g.dot(at::arange(g.numel(), at::kDouble).cos()).item<double>(), figure[2], 1e-3 * norm + 1e-6) << name;
    }
    fs::remove_all(out_);
  }
}

TEST_P(MtpTest, ATrainerLearnsToPredictAheadWhateverTheMicrobatch) {
  const std::vector<TrainingSequence> sequences = Sequences(golden_["tokens"]);
  double losses[2] = {};
  for (int64_t tokens : {8192, 16}) {
    TrainerSettings settings = Settings(folder_, true);
    settings.microbatch_tokens = tokens;
    auto trainer = Make(settings);
    double last = 0;
    for (int i = 0; i < 20; ++i) {
      auto result = trainer->Update(sequences);
      ASSERT_TRUE(result.ok()) << result.status();
      last = Find(result->metrics, "mtp_loss");
      if (i > 0) continue;
      EXPECT_NEAR(Find(result->metrics, "loss"), golden_["loss"].get<double>(), 2e-5);
      EXPECT_NEAR(last, golden_["mtp_loss"].get<double>(), 2e-5);
    }
    EXPECT_LT(last, 0.5 * golden_["mtp_loss"].get<double>());
    losses[tokens == 16] = last;
  }
  EXPECT_NEAR(losses[0], losses[1], 1e-3);
}

TEST_P(MtpTest, IsWrittenAsItWasPublishedAndDroppedOnRequest) {
  auto theirs = *checkpoint::SafetensorsFile::Open(folder_ + "/model.safetensors");
  for (bool mtp : {true, false}) {
    auto trainer = Make(Settings(folder_, mtp));
    ASSERT_TRUE(models::SaveModelFolder(out_, trainer->model(), trainer->registry(), trainer->compute(), "").ok());
    auto ours = *checkpoint::SafetensorsFile::Open(out_ + "/model.safetensors");
    size_t ahead = 0;
    for (const auto& [name, view] : theirs->tensors()) {
      const bool of_mtp = absl::StartsWith(name, "model.layers.2.") || absl::StartsWith(name, "model.layers.3.");
      ahead += of_mtp;
      const checkpoint::TensorView* own = ours->Find(name);
      ASSERT_EQ(own != nullptr, mtp || !of_mtp) << name;
      if (own == nullptr) continue;
      EXPECT_EQ(own->shape, view.shape) << name;
      EXPECT_EQ(std::memcmp(own->data, view.data, view.size_bytes), 0) << name;
    }
    EXPECT_EQ(ours->tensors().size(), theirs->tensors().size() - (mtp ? 0 : ahead));
    EXPECT_EQ(json::parse(std::ifstream(out_ + "/config.json"))["num_nextn_predict_layers"], mtp ? 2 : 0);
    EXPECT_TRUE(models::DescribeModel(out_).ok());
    fs::remove_all(out_);
  }
  // What generates and scores computes the same with and without.
  const std::vector<TrainingSequence> sequences = Sequences(golden_["tokens"]);
  EXPECT_EQ(*Make(Settings(folder_, true))->Score(sequences), *Make(Settings(folder_, false))->Score(sequences));
}

TEST_P(MtpTest, SaysWhatIsWrong) {
  TrainerSettings settings = Settings(folder_, true);
  settings.trained.mtp = false;
  EXPECT_THAT(Refusal(settings), HasSubstr("trainer.mtp_loss is 0.3, but no layer of multi-token prediction is loaded"));
  settings = Settings(folder_, true);
  settings.model_path = "tests/golden/models/qwen3";
  EXPECT_THAT(Refusal(settings), HasSubstr("Qwen3ForCausalLM) has no layers of multi-token prediction"));
  settings = Settings(folder_, true);
  settings.trained.lora = models::LoraChoice{.rank = 4};
  EXPECT_THAT(Refusal(settings), HasSubstr("cannot stand beside model.lora"));
  settings = Settings(folder_, true);
  settings.model_path = "tests/golden/models/" + GetParam();  // which says that it has one, and has none
  EXPECT_THAT(Refusal(settings), HasSubstr("model.layers.2.eh_proj.weight is missing"));

  // The embedding and the head are the model's own: a file in which they are others is another model.
  auto trainer = Make(Settings(folder_, true));
  ASSERT_TRUE(models::SaveModelFolder(out_, trainer->model(), trainer->registry(), trainer->compute(), "").ok());
  {
    std::fstream file(out_ + "/model.safetensors", std::ios::in | std::ios::out | std::ios::binary);
    auto saved = *checkpoint::SafetensorsFile::Open(out_ + "/model.safetensors");
    const char* base = saved->tensors().begin()->second.data;
    for (const auto& [name, view] : saved->tensors()) base = std::min(base, view.data);
    uint64_t header = 0;
    file.read(reinterpret_cast<char*>(&header), sizeof(header));
    file.seekp(static_cast<std::streamoff>(sizeof(header) + header) + (saved->Find("model.layers.3.embed_tokens.weight")->data - base));
    file.put('\x55');
  }
  settings = Settings(folder_, true);
  settings.model_path = out_;
  EXPECT_THAT(Refusal(settings), HasSubstr("model.layers.3.embed_tokens.weight differs from model.embed_tokens.weight, which it shares"));
  fs::remove_all(out_);
}

INSTANTIATE_TEST_SUITE_P(Families, MtpTest, testing::Values("deepseek_v3", "glm4_moe"), [](const auto& i) { return i.param; });

}  // namespace
}  // namespace rein::trainer

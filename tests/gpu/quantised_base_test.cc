// Bases in 8 and 4 bits on the GPU: the numbers are those of a CPU bit for bit, and a generator, a trainer and a reference that
// hold equal codes give equal log-probs.

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "common/models/model_folder.h"
#include "common/nn/quantised_matrix.h"
#include "common/policy/sequence_scorer.h"
#include "rollout/engine/step_trace.h"
#include "tests/gpu/random_policy.h"

namespace rein::gpu {
namespace {

namespace fs = std::filesystem;
using nn::QuantisedMatrix;
using weights::Quantisation;

QuantisedMatrix Empty(const at::Tensor& x, Quantisation format, at::ScalarType dtype) {
  const int64_t scales = weights::ScaleCount(format, x.size(0), x.numel());
  return {format, at::zeros({weights::CodeBytes(format, x.numel())}, x.options().dtype(at::kByte)),
          at::zeros({scales}, x.options().dtype(at::kFloat)), x.sizes().vec(), dtype};
}

TEST(QuantisedBaseGpuTest, NumbersAreThoseOfACpu) {
  at::manual_seed(3);
  for (auto [rows, columns] : {std::pair<int64_t, int64_t>{128, 64}, {64, 51}, {320, 1000}, {1, 64}}) {
    at::Tensor x = at::randn({rows, columns}) * at::randn({rows, 1}).exp();
    x[0] = 0;
    for (Quantisation format : {Quantisation::kInt8, Quantisation::kNf4}) {
      for (at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
        QuantisedMatrix on_cpu = Empty(x, format, dtype), on_gpu = Empty(x.cuda(), format, dtype);
        nn::Quantise(x, on_cpu);
        nn::Quantise(x.cuda(), on_gpu);
        EXPECT_TRUE(at::equal(on_gpu.code.cpu(), on_cpu.code));
        EXPECT_TRUE(at::equal(on_gpu.scale.cpu(), on_cpu.scale));
        EXPECT_TRUE(at::equal(nn::Unpacked(on_gpu).cpu(), nn::Unpacked(on_cpu))) << rows << " x " << columns;
      }
    }
  }
}

struct Case {
  const char* shape;
  Quantisation base;
  std::vector<std::string> targets;  // without experts these run as one grouped product
};

TEST(QuantisedBaseGpuTest, GeneratorTrainerAndReferenceGiveTheSameBits) {
  const std::string folder = testing::TempDir() + "/quantised_base";
  for (const Case& c : {Case{"smollm2-135m", Quantisation::kNf4, {}}, Case{"smollm2-135m", Quantisation::kInt8, {}},
                        Case{"mixtral-small-4l", Quantisation::kNf4, {"q_proj", "o_proj"}}}) {
    fs::remove_all(folder);
    {
      RandomPolicy start(WriteModelFolder(*FindShape(c.shape), 3), {}, trainer::Sft(trainer::Aggregation::kTokenMean), false);
      ASSERT_TRUE(models::SaveModelFolder(folder, start.trainer().model(), start.trainer().registry(), start.trainer().compute(), "").ok());
    }
    auto group = parallel::SingleProcess();
    trainer::TrainerSettings settings;
    settings.model_path = folder;
    settings.device = "cuda:0";
    settings.schedule.peak = 1e-2;
    settings.trained = {.lora = models::LoraChoice{.rank = 16, .targets = c.targets}, .base = c.base};
    auto made = trainer::PolicyTrainer::Create(settings, trainer::Sft(trainer::Aggregation::kTokenMean), *group);
    ASSERT_TRUE(made.ok()) << made.status();
    trainer::PolicyTrainer& trainer = **made;
    const int64_t vocabulary = trainer.model().spec.vocab_size;
    std::vector<trainer::TrainingSequence> train;
    std::vector<policy::ScoredSequence> score;
    at::manual_seed(5);
    for (int64_t length : {37, 90, 201, 18}) {
      at::Tensor ids = at::randint(1, vocabulary, {length}, at::kLong);
      trainer::TrainingSequence& t = train.emplace_back();
      t.token_ids.assign(ids.const_data_ptr<int64_t>(), ids.const_data_ptr<int64_t>() + length);
      t.loss_mask.assign(t.token_ids.size(), 1);
      std::fill_n(t.loss_mask.begin(), 9, 0);
      score.push_back({.tokens = {t.token_ids.begin(), t.token_ids.end()}, .prefix = 9});
    }
    for (int i = 0; i < 3; ++i) {
      auto update = trainer.Update(train);
      ASSERT_TRUE(update.ok()) << update.status();
    }
    auto slots = *policy::PolicySlots::Create(trainer.model().spec, {.device = at::Device(at::kCUDA, 0)});
    ASSERT_TRUE(slots->LoadFrozen(folder, trainer.model()).ok());
    EXPECT_EQ(slots->plan().frozen_digest, trainer.frozen_digest());
    const at::Tensor trained = trainer.parts().trained;
    at::from_blob((*slots->IdleDeviceMemory()).arena, trained.sizes(), trained.options()).copy_(trained);
    ASSERT_TRUE(slots->TakeIntoUse({1, 1}, weights::InFlight::kFinish).ok());
    auto by_trainer = *trainer.Score(train), by_reference = *policy::ScoreSequences(slots->decoder(), score, 1.0);
    auto pass = trainer.ForwardBackward(train);
    ASSERT_TRUE(pass.ok()) << pass.status();
    for (size_t i = 0; i < score.size(); ++i) {
      auto steps = rollout::TraceInSteps(*slots, score[i], 1.0);
      ASSERT_TRUE(steps.ok()) << steps.status();
      EXPECT_EQ(steps->logprob, by_trainer[i]) << c.shape;
      EXPECT_EQ(by_reference[i], by_trainer[i]) << c.shape;
      EXPECT_EQ(pass->logprobs[i], by_trainer[i]) << c.shape;
    }
  }
  fs::remove_all(folder);
}

}  // namespace
}  // namespace rein::gpu

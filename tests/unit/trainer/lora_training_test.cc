// Training of low-rank updates and with frozen parameters: what moves, what is kept, and what is held in memory.

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <mutex>

#include "common/checkpoint/safetensors.h"
#include "common/models/arena.h"
#include "common/policy/policy_slots.h"
#include "common/policy/sequence_scorer.h"
#include "tests/unit/common/parallel/rank_threads.h"
#include "tests/unit/trainer/training_fixture.h"
#include "trainer/algorithms/policy_gradient.h"
#include "trainer/trainer_checkpoint.h"

namespace rein::trainer {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

constexpr const char* kBase = "tests/golden/models/qwen3";

TrainerSettings With(models::TrainedChoice trained, const char* base = kBase) {
  TrainerSettings s = Settings();
  s.model_path = base;
  s.random_weights = false;
  s.trained = std::move(trained);
  return s;
}

models::TrainedChoice Lora(int64_t rank = 4) { return {.lora = models::LoraChoice{.rank = rank, .alpha = 8}}; }

TrainingSequence ByHeart() {
  TrainingSequence s{.id = "x", .token_ids = {5, 9, 7, 8, 4, 30, 41, 22, 9}};
  s.loss_mask = {0, 0, 1, 1, 1, 1, 1, 1, 1};
  return s;
}

// 40 Updates; the first's and the last's loss.
void LearnByHeart(PolicyTrainer& trainer, double* first, double* last) {
  for (int i = 0; i < 40; ++i) {
    auto result = trainer.Update({ByHeart(), ByHeart()});
    ASSERT_TRUE(result.ok()) << result.status();
    *last = Find(result->metrics, "loss");
    if (i == 0) *first = *last;
  }
}

TEST(LoraTrainingTest, LearnsAndLeavesTheBaseAlone) {
  for (const char* base : {kBase, "tests/golden/models/mixtral", "tests/golden/models/deepseek_v3", "tests/golden/models/qwen3_next"}) {
    auto trainer = Make(With(Lora(8), base), Sft(Aggregation::kTokenMean));
    at::Tensor frozen = trainer->parts().frozen.clone(), trained = trainer->parts().trained.clone();
    double first = 0, last = 0;
    ASSERT_NO_FATAL_FAILURE(LearnByHeart(*trainer, &first, &last));
    EXPECT_LT(last, 0.3 * first) << base;
    EXPECT_TRUE(at::equal(trainer->parts().frozen, frozen)) << base;
    EXPECT_FALSE(at::equal(trainer->parts().trained, trained)) << base;
    auto arenas = *trainer->GatherArenas();
    EXPECT_EQ(arenas.moment1.numel(), trainer->registry().trained_elements());
    EXPECT_LT(arenas.moment1.numel(), trainer->compute().numel()) << base;
  }
}

TEST(LoraTrainingTest, FrozenParametersKeepTheirBits) {
  TrainerSettings settings = With({.freeze = {"embed_tokens", "layers.0.*", "layers.1.self_attn.k_proj"}});
  settings.adamw.weight_decay = 0.1;
  auto trainer = Make(settings, Sft(Aggregation::kTokenMean));
  at::Tensor before = trainer->compute().clone();
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(trainer->Update({ByHeart(), ByHeart()}).ok());
  for (const weights::Parameter& p : trainer->registry().parameters()) {
    at::Tensor now = trainer->compute().narrow(0, p.offset, p.elements), then = before.narrow(0, p.offset, p.elements);
    EXPECT_EQ(at::equal(now, then), !p.spec.trained) << p.spec.name;
  }
}

// The generator's slots hold the base once and take adapters alone; log-probs are the trainer's.
TEST(LoraTrainingTest, ASyncBringsTheAdaptersToTheSameBaseOnly) {
  auto trainer = Make(With(Lora()), Sft(Aggregation::kTokenMean));
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(trainer->Update({ByHeart()}).ok());
  weights::WeightPlan plan = weights::PlanOf(trainer->registry(), "float32");
  plan.frozen_digest = trainer->frozen_digest();
  EXPECT_NE(plan.frozen_digest, 0u);
  EXPECT_EQ(plan.arena_bytes, 4u * static_cast<uint64_t>(trainer->registry().trained_elements()));
  for (const auto& p : plan.parameters) EXPECT_THAT(p.name, HasSubstr(".lora_"));

  auto slots = *policy::PolicySlots::Create(trainer->model().spec, {});
  EXPECT_THAT(std::string(weights::CheckPlan(plan, slots->plan()).message()), HasSubstr("load the same base model on both"));
  ASSERT_TRUE(slots->LoadFrozen(kBase, trainer->model()).ok());
  EXPECT_TRUE(weights::CheckPlan(plan, slots->plan()).ok()) << weights::CheckPlan(plan, slots->plan());
  at::Tensor sent = *trainer->HostWeights();
  EXPECT_EQ(static_cast<uint64_t>(sent.nbytes()), plan.arena_bytes);
  ASSERT_TRUE(slots->Write(0, static_cast<const char*>(sent.const_data_ptr()), sent.nbytes()).ok());
  EXPECT_EQ(*slots->IdleDigests(), *models::ArenaDigests(trainer->registry(), trainer->parts().trained));
  ASSERT_TRUE(slots->TakeIntoUse({1, 1}, weights::InFlight::kFinish).ok());
  const TrainingSequence s = ByHeart();
  auto scored = *policy::ScoreSequences(slots->decoder(), {{{s.token_ids.begin(), s.token_ids.end()}, 2}}, 1.0);
  auto own = *trainer->Score({s});
  for (size_t i = 0; i < own[0].size(); ++i) EXPECT_NEAR(scored[0][i], own[0][i], 1e-5);
}

// Modules that are saved whole are trained, sent and kept beside the updates; the rest of the base stays.
TEST(LoraTrainingTest, SavedModulesAreTrainedWhole) {
  constexpr const char* kUntied = "tests/golden/models/llama";
  const std::string path = testing::TempDir() + "/saved_modules";
  fs::remove_all(path);
  models::TrainedChoice choice = Lora();
  choice.lora->save = {"lm_head", "embed_tokens"};
  auto trainer = Make(With(choice, kUntied), Sft(Aggregation::kTokenMean));
  const weights::Registry& registry = trainer->registry();
  at::Tensor frozen = trainer->parts().frozen.clone();
  auto of = [&](const PolicyTrainer& t, const char* name) { return t.parts().Of(registry, *registry.Find(name)).clone(); };
  at::Tensor head = of(*trainer, "head.weight"), embedding = of(*trainer, "embedding.weight");
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(trainer->Update({ByHeart()}).ok());
  EXPECT_FALSE(at::equal(of(*trainer, "head.weight"), head));
  EXPECT_FALSE(at::equal(of(*trainer, "embedding.weight"), embedding));
  EXPECT_TRUE(at::equal(trainer->parts().frozen, frozen));
  std::vector<std::string> sent;
  for (const auto& p : weights::PlanOf(registry, "float32").parameters) {
    if (p.name.find(".lora_") == std::string::npos) sent.push_back(p.name);
  }
  EXPECT_THAT(sent, testing::UnorderedElementsAre("head.weight", "embedding.weight"));
  ASSERT_TRUE(SaveCheckpoint(*trainer, path, {.controller_state = "state"}).ok());
  auto file = *checkpoint::SafetensorsFile::Open(path + "/adapter_model.safetensors");
  EXPECT_NE(file->Find("base_model.model.lm_head.weight"), nullptr);
  EXPECT_NE(file->Find("base_model.model.model.embed_tokens.weight"), nullptr);
  TrainerSettings further = With({}, kUntied);
  further.model_path = path;
  auto again = Make(further, Sft(Aggregation::kTokenMean));
  EXPECT_TRUE(at::equal(again->compute(), trainer->compute())) << "the folder says itself what is saved";
  EXPECT_EQ(*again->Score({ByHeart()}), *trainer->Score({ByHeart()}));
  fs::remove_all(path);
}

// Beneath adapters the generator's slots hold the trainer's very codes: equal digests, and equal log-probs as over a base
// of whole numbers; another format is another base.
TEST(LoraTrainingTest, AQuantisedBaseIsTheSameOnBothSides) {
  for (weights::Quantisation format : {weights::Quantisation::kInt8, weights::Quantisation::kNf4}) {
    models::TrainedChoice choice = Lora(8);
    choice.base = format;
    auto trainer = Make(With(choice), Sft(Aggregation::kTokenMean));
    const at::Tensor code = trainer->parts().quantised.code.clone();
    double first = 0, last = 0;
    ASSERT_NO_FATAL_FAILURE(LearnByHeart(*trainer, &first, &last));
    EXPECT_LT(last, 0.3 * first);
    EXPECT_TRUE(at::equal(trainer->parts().quantised.code, code));
    // Of what is frozen, matrices take a byte (or half a one) for each number, and scales.
    auto whole = Make(With(Lora(8)), Sft(Aggregation::kTokenMean));
    const auto bytes = [](const PolicyTrainer& t) { return 4 * t.registry().trained_begin() + t.registry().quantised_bytes(); };
    EXPECT_LT(bytes(*trainer), bytes(*whole) * 2 / 3);

    weights::WeightPlan plan = weights::PlanOf(trainer->registry(), "float32");
    plan.frozen_digest = trainer->frozen_digest();
    EXPECT_NE(plan.frozen_digest, whole->frozen_digest());
    auto slots = *policy::PolicySlots::Create(trainer->model().spec, {});
    ASSERT_TRUE(slots->LoadFrozen(kBase, trainer->model()).ok());
    EXPECT_TRUE(weights::CheckPlan(plan, slots->plan()).ok()) << weights::CheckPlan(plan, slots->plan());
    auto others = *policy::PolicySlots::Create(whole->model().spec, {});
    ASSERT_TRUE(others->LoadFrozen(kBase, whole->model()).ok());
    EXPECT_FALSE(weights::CheckPlan(plan, others->plan()).ok());
    EXPECT_LT(slots->bytes(), others->bytes());
    at::Tensor sent = *trainer->HostWeights();
    ASSERT_TRUE(slots->Write(0, static_cast<const char*>(sent.const_data_ptr()), sent.nbytes()).ok());
    ASSERT_TRUE(slots->TakeIntoUse({1, 1}, weights::InFlight::kFinish).ok());
    const TrainingSequence s = ByHeart();
    auto scored = *policy::ScoreSequences(slots->decoder(), {{{s.token_ids.begin(), s.token_ids.end()}, 2}}, 1.0);
    auto own = *trainer->Score({s});
    for (size_t i = 0; i < own[0].size(); ++i) EXPECT_NEAR(scored[0][i], own[0][i], 1e-5);

    // A checkpoint holds adapters alone, and wants the same base.
    const std::string path = testing::TempDir() + "/quantised_checkpoint";
    fs::remove_all(path);
    ASSERT_TRUE(SaveCheckpoint(*trainer, path, {.controller_state = "state"}).ok());
    EXPECT_FALSE(fs::exists(path + "/model.safetensors"));
    auto again = Make(With(choice), Sft(Aggregation::kTokenMean));
    ASSERT_TRUE(RestoreCheckpoint(*again, path).ok());
    ASSERT_TRUE(trainer->Update({ByHeart()}).ok());
    ASSERT_TRUE(again->Update({ByHeart()}).ok());
    EXPECT_TRUE(at::equal(again->compute(), trainer->compute()));
    EXPECT_THAT(std::string(RestoreCheckpoint(*whole, path).status().message()), HasSubstr("model.base"));
    TrainerSettings further = With({.base = format});
    further.model_path = path;
    EXPECT_TRUE(Make(further, Sft(Aggregation::kTokenMean))->Update({ByHeart()}).ok());
    fs::remove_all(path);
  }
}

TEST(LoraTrainingTest, ACheckpointHoldsAdaptersAndResumesBitForBit) {
  const std::string path = testing::TempDir() + "/lora_checkpoint", frozen_path = path + "_freeze";
  for (auto& [trained, out] : {std::pair{Lora(), path}, std::pair{models::TrainedChoice{.freeze = {"layers.0.*"}}, frozen_path}}) {
    fs::remove_all(out);
    auto trainer = Make(With(trained), Sft(Aggregation::kTokenMean));
    ASSERT_TRUE(trainer->Update({ByHeart()}).ok());
    absl::StatusOr<uint64_t> saved = SaveCheckpoint(*trainer, out, {.controller_state = "state"});
    ASSERT_TRUE(saved.ok()) << saved.status();
    EXPECT_EQ(fs::exists(out + "/adapter_model.safetensors"), trained.lora.has_value());
    EXPECT_EQ(fs::exists(out + "/model.safetensors"), !trained.lora.has_value());
    auto optimizer = *checkpoint::SafetensorsFile::Open(out + "/optimizer.safetensors");
    for (const auto& [name, view] : optimizer->tensors()) {
      const std::string part = trained.lora ? ".lora_" : "layers.0.";
      EXPECT_EQ(name.find(part) != std::string::npos, trained.lora.has_value()) << name;
    }
    auto again = Make(With(trained), Sft(Aggregation::kTokenMean));
    absl::StatusOr<std::string> state = RestoreCheckpoint(*again, out);
    ASSERT_TRUE(state.ok()) << state.status();
    EXPECT_EQ(*state, "state");
    EXPECT_TRUE(at::equal(again->compute(), trainer->compute()));
    ASSERT_TRUE(trainer->Update({ByHeart()}).ok());
    ASSERT_TRUE(again->Update({ByHeart()}).ok());
    EXPECT_TRUE(at::equal(again->compute(), trainer->compute()));
    EXPECT_TRUE(at::equal(again->GatherArenas()->moment2, trainer->GatherArenas()->moment2));
  }
  // Another base, and the checkpoint as a start of its own.
  auto other = Make(With({}), Sft(Aggregation::kTokenMean));
  EXPECT_THAT(std::string(RestoreCheckpoint(*other, path).status().message()), HasSubstr("start from the same base"));
  TrainerSettings further = With({});
  further.model_path = path;
  auto trainer = Make(further, Sft(Aggregation::kTokenMean));
  EXPECT_FALSE(trainer->model().spec.lora.empty());
  ASSERT_TRUE(trainer->Update({ByHeart()}).ok());
  fs::remove_all(path);
  fs::remove_all(frozen_path);
}

TEST(LoraTrainingTest, DpoHoldsTheBaseOnceAndBeginsAtLnTwo) {
  auto trainer = Make(With(Lora()), DirectPreference({}, false));
  std::vector<TrainingSequence> pair = {ByHeart(), ByHeart()};
  pair[1].token_ids[5] = 11;
  double last = 0;
  for (int i = 0; i < 10; ++i) {
    auto result = trainer->Update(pair);
    ASSERT_TRUE(result.ok()) << result.status();
    last = Find(result->metrics, "loss");
    EXPECT_NEAR(i == 0 ? last : std::log(2.0), std::log(2.0), 1e-5);
  }
  EXPECT_LT(last, 0.5);
}

TEST(LoraTrainingTest, RanksGiveOneRanksAdapters) {
  at::manual_seed(4);
  std::vector<TrainingSequence> batch = RandomSequences(4, 4);
  for (TrainingSequence& s : batch) s.behaviour_logprobs.assign(static_cast<size_t>(s.targets()), -4.1f);
  auto train = [&batch](parallel::ProcessGroup& group) {
    at::set_num_threads(1);
    TrainerSettings settings = With(Lora());
    // An epsilon far above the gradients: else a step has its full length even where a gradient is only the rounding of a sum.
    settings.schedule.peak = settings.adamw.epsilon = 1;
    auto trainer = *PolicyTrainer::Create(settings, PolicyGradient({}), group);
    for (int i = 0; i < 2; ++i) {
      auto result = trainer->Update(batch);
      EXPECT_TRUE(result.ok()) << result.status();
    }
    return *trainer->GatherArenas();
  };
  auto single = parallel::SingleProcess();
  const Arenas one = train(*single);
  std::mutex mutex;
  std::vector<Arenas> all;
  parallel::RunRanks(2, [&](parallel::ProcessGroup& group) {
    Arenas arenas = train(group);
    std::lock_guard<std::mutex> lock(mutex);
    all.push_back(std::move(arenas));
  });
  ASSERT_EQ(all.size(), 2u);
  for (const Arenas& arenas : all) {
    EXPECT_TRUE(at::equal(arenas.master, all[0].master));
    EXPECT_LE(((arenas.master - one.master).norm() / one.master.norm()).item<double>(), 1e-5);
    EXPECT_LE(((arenas.moment1 - one.moment1).norm() / one.moment1.norm()).item<double>(), 1e-5);
  }
}

TEST(LoraTrainingTest, RandomWeightsAreRefused) {
  TrainerSettings settings = With(Lora());
  settings.random_weights = true;
  auto group = parallel::SingleProcess();
  auto made = PolicyTrainer::Create(settings, Sft(Aggregation::kTokenMean), *group);
  EXPECT_THAT(std::string(made.status().message()), HasSubstr("random weights are all trained"));
}

}  // namespace
}  // namespace rein::trainer

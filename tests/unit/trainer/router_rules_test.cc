// What a job asks of routers: the correcting bias, levels of the auxiliary loss, capacity.

#include "trainer/router_rules.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <mutex>

#include "absl/strings/match.h"
#include "tests/unit/common/parallel/rank_threads.h"
#include "tests/unit/trainer/training_fixture.h"

namespace rein::trainer {
namespace {

using ::testing::HasSubstr;
using Level = nn::RouterRecord::Level;

TrainerSettings With(RouterRules rules, const char* model = "tests/golden/models/deepseek_v3") {
  TrainerSettings s = Settings();
  s.model_path = model;
  s.random_weights = false;
  s.router = rules;
  return s;
}

std::vector<TrainingSequence> Batch() {
  at::manual_seed(4);
  return RandomSequences(6, 2);
}

TEST(RouterRulesTest, TheBiasMovesAgainstTheLoad) {
  auto trainer = Make(With({.bias_rate = 0.01}), Sft(Aggregation::kTokenMean));
  auto plain = Make(With({}), Sft(Aggregation::kTokenMean));
  const weights::Parameter* p = trainer->registry().Find("layers.1.router.correction");
  ASSERT_NE(p, nullptr);
  auto correction = [&](PolicyTrainer& t) { return t.compute().narrow(0, p->offset, p->elements).clone(); };
  at::Tensor before = correction(*trainer);
  const auto batch = Batch();
  ASSERT_TRUE(trainer->Update(batch).ok());
  ASSERT_TRUE(plain->Update(batch).ok());
  EXPECT_TRUE(at::equal(correction(*plain), before)) << "without a rate it stays";
  at::Tensor moved = correction(*trainer) - before;
  EXPECT_LE((moved.abs() - 0.01).abs().max().item<float>(), 1e-6) << "no expert of this batch has its exact share";
  EXPECT_GT(moved.max().item<float>(), 0);
  EXPECT_LT(moved.min().item<float>(), 0);
  // All else was trained alike.
  for (const weights::Parameter& q : trainer->registry().parameters()) {
    if (absl::EndsWith(q.spec.name, "router.correction")) continue;
    EXPECT_TRUE(at::equal(trainer->compute().narrow(0, q.offset, q.elements), plain->compute().narrow(0, q.offset, q.elements)))
        << q.spec.name;
  }
}

// Choices as a generator sends them, 2 bytes for each token but the last, router and chosen expert.
std::string Choices(const TrainingSequence& s, const models::DecoderSpec& spec, uint16_t first) {
  std::string bytes;
  for (size_t i = 0; i + 1 < s.token_ids.size(); ++i) {
    for (int64_t r = 0; r < spec.routers_before(spec.num_layers) * spec.experts.routing.chosen; ++r) {
      const auto expert = static_cast<uint16_t>((first + static_cast<uint64_t>(r)) % static_cast<uint64_t>(spec.experts.routing.experts));
      bytes.append(reinterpret_cast<const char*>(&expert), sizeof(expert));
    }
  }
  return bytes;
}

TEST(RouterRulesTest, ReplayedChoicesTakeThePlaceOfTheRouters) {
  for (const char* model : {"tests/golden/models/deepseek_v3", "tests/golden/models/qwen3_moe", "tests/golden/models/mixtral"}) {
    auto plain = Make(With({}, model), Sft(Aggregation::kTokenMean));
    const models::DecoderSpec spec = plain->model().spec;
    const int64_t width = spec.routers_before(spec.num_layers) * spec.experts.routing.chosen;
    auto batch = Batch();
    auto loss_of = [&](const RouterRules& rules, const std::vector<TrainingSequence>& sequences, bool recompute = false) {
      TrainerSettings settings = With(rules, model);
      settings.recompute = recompute;
      auto result = Make(settings, Sft(Aggregation::kTokenMean))->Update(sequences);
      EXPECT_TRUE(result.ok()) << result.status();
      return *std::move(result);
    };
    const double own = Find(loss_of({}, batch).metrics, "loss");
    EXPECT_EQ(Find(loss_of({.replay = true}, batch).metrics, "loss"), own) << "nothing to replay";
    double tokens = 0;
    for (TrainingSequence& s : batch) {
      s.expert_choices = Choices(s, spec, 1);
      tokens += static_cast<double>(s.token_ids.size() - 1);
    }
    EXPECT_EQ(Find(loss_of({}, batch).metrics, "loss"), own) << "not asked to";
    const auto replayed = loss_of({.replay = true}, batch), again = loss_of({.replay = true}, batch, /*recompute=*/true);
    EXPECT_NE(Find(replayed.metrics, "loss"), own) << model;
    EXPECT_EQ(Find(replayed.metrics, "loss"), Find(again.metrics, "loss"));
    EXPECT_EQ(Find(replayed.metrics, "grad_norm"), Find(again.metrics, "grad_norm"));
    // Siblings' prompts may be computed once.
    EXPECT_LE(Find(replayed.metrics, "router_replayed"), tokens * static_cast<double>(width));
    EXPECT_GT(Find(replayed.metrics, "router_replayed"), 0);
    EXPECT_GT(Find(replayed.metrics, "router_differing"), 0);
    EXPECT_LT(Find(replayed.metrics, "router_differing"), Find(replayed.metrics, "router_replayed"));
    batch[1].expert_choices.pop_back();
    auto trainer = Make(With({.replay = true}, model), Sft(Aggregation::kTokenMean));
    EXPECT_THAT(std::string(trainer->Update(batch).status().message()), HasSubstr("bytes of expert_choices for"));
    batch[1].expert_choices = Choices(batch[1], spec, 0);
    batch[1].expert_choices[0] = 77;
    EXPECT_THAT(std::string(trainer->Update(batch).status().message()), HasSubstr("went to expert 77, want below"));
  }
  auto group = parallel::SingleProcess();
  EXPECT_THAT(std::string(PolicyTrainer::Create(With({.replay = true}, "tests/golden/models/qwen3"), Sft(Aggregation::kTokenMean), *group).status().message()),
              HasSubstr("trainer.router.replay is 1, but Qwen3ForCausalLM has no experts"));
}

TEST(RouterRulesTest, TheBiasEvensTheLoad) {
  auto highest = [](RouterRules rules) {
    TrainerSettings settings = With(rules);
    settings.schedule.peak = 1e-6;  // the router itself learns next to nothing
    auto trainer = Make(settings, Sft(Aggregation::kTokenMean));
    const auto batch = Batch();
    double last = 0;
    for (int i = 0; i < 60; ++i) last = Find(trainer->Update(batch)->metrics, "router_highest_load");
    return last;
  };
  EXPECT_LT(highest({.bias_rate = 0.02}), 0.8 * highest({}));
}

struct Outcome {
  at::Tensor weights, correction, gradient;  // after one update; the gradient times a factor
  double z_loss = 0;
};

TEST(RouterRulesTest, RanksMoveTheBiasAlike) {
  const auto batch = Batch();
  for (Level level : {Level::kGlobal, Level::kSequence}) {
    auto train = [&](parallel::ProcessGroup& group) {
      at::set_num_threads(1);
      RouterRules rules{.auxiliary_loss = 0.1, .level = level, .z_loss = 1e-3, .bias_rate = 0.01};
      auto trainer = *PolicyTrainer::Create(With(rules), Sft(Aggregation::kTokenMean), group);
      const std::vector<Metric> metrics = trainer->Update(batch)->metrics;
      const weights::Parameter* p = trainer->registry().Find("layers.1.router.correction");
      return Outcome{trainer->compute().clone(), trainer->compute().narrow(0, p->offset, p->elements).clone(),
                     trainer->GatherArenas()->moment1, Find(metrics, "router_z_loss")};
    };
    auto single = parallel::SingleProcess();
    const auto one = train(*single);
    std::mutex mutex;
    std::vector<Outcome> all;
    parallel::RunRanks(2, [&](parallel::ProcessGroup& group) {
      auto outcome = train(group);
      std::lock_guard<std::mutex> lock(mutex);
      all.push_back(std::move(outcome));
    });
    ASSERT_EQ(all.size(), 2u);
    EXPECT_TRUE(at::equal(all[0].weights, all[1].weights));
    EXPECT_TRUE(at::equal(all[0].correction, one.correction));
    // A sequence's loss is a mean over those of its microbatch, so that it depends on the split a little.
    const double tolerance = level == Level::kGlobal ? 1e-5 : 5e-2;
    EXPECT_LE(((all[0].gradient - one.gradient).norm() / one.gradient.norm()).item<double>(), tolerance);
    EXPECT_NEAR(all[0].z_loss, one.z_loss, 1e-5);
    EXPECT_GT(one.z_loss, 0);
  }
}

TEST(RouterRulesTest, AuxiliaryLossesEvenTheLoad) {
  for (Level level : {Level::kBatch, Level::kSequence, Level::kGlobal}) {
    TrainerSettings settings = With({.auxiliary_loss = 1, .level = level}, "tests/golden/models/mixtral");
    settings.schedule.peak = 3e-3;
    auto trainer = Make(settings, Sft(Aggregation::kTokenMean));
    const auto batch = Batch();
    double first = 0, last = 0;
    for (int i = 0; i < 40; ++i) {
      last = Find(trainer->Update(batch)->metrics, "router_balance_loss");
      if (i == 0) first = last;
    }
    EXPECT_LT(last, first) << static_cast<int>(level);
  }
}

TEST(RouterRulesTest, CapacityDropsAndCounts) {
  const auto batch = Batch();
  auto limited = Make(With({.capacity = 0.5}, "tests/golden/models/mixtral"), Sft(Aggregation::kTokenMean));
  auto metrics = limited->Update(batch)->metrics;
  EXPECT_GT(Find(metrics, "router_dropped"), 0.3);
  EXPECT_LT(Find(metrics, "router_dropped"), 0.7);
  auto roomy = Make(With({.capacity = 4}, "tests/golden/models/mixtral"), Sft(Aggregation::kTokenMean));
  EXPECT_EQ(Find(roomy->Update(batch)->metrics, "router_dropped"), 0);
}

TEST(RouterRulesTest, SaysWhatTheModelLacks) {
  auto error = [](RouterRules rules, const char* model) {
    auto group = parallel::SingleProcess();
    return std::string(PolicyTrainer::Create(With(rules, model), Sft(Aggregation::kTokenMean), *group).status().message());
  };
  EXPECT_THAT(error({.z_loss = 1e-3}, "tests/golden/models/qwen3"), HasSubstr("trainer.router.z_loss is 0.001, but Qwen3ForCausalLM has no experts"));
  EXPECT_THAT(error({.bias_rate = 1e-3}, "tests/golden/models/mixtral"), HasSubstr("has no correcting bias"));
}

}  // namespace
}  // namespace rein::trainer

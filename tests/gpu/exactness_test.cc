// Zero mismatch: the log-prob that the generator reports for a token is, bit for bit, the one that the
// trainer and the reference compute, whatever the batch, the chunks, the cache, preemption, captured graphs,
// packing or microbatch, before and after an update of the weights.
//
// REIN_EXACTNESS_PROMPTS (default 40 per shape and version, a fifth of it for the small shape of each family) sets the
// length of the sweep.

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include <cctype>
#include <cstdlib>
#include <map>
#include <random>

#include "common/models/row_bits.h"
#include "common/policy/layer_trace.h"
#include "common/policy/sequence_scorer.h"
#include "rollout/engine/decoder_step_model.h"
#include "rollout/engine/engine_core.h"
#include "rollout/engine/step_trace.h"
#include "tests/gpu/random_policy.h"

namespace rein::gpu {
namespace {

using rollout::EngineOptions;
using rollout::FinishedSibling;
using rollout::GenerateSpec;
using rollout::KvOptions;
using Completions = std::map<std::pair<uint64_t, uint32_t>, FinishedSibling>;

int Prompts(const std::string& shape) {
  const char* text = std::getenv("REIN_EXACTNESS_PROMPTS");
  const int prompts = text == nullptr ? 40 : std::max(1, std::atoi(text));
  return shape.starts_with("small-") ? (prompts + 4) / 5 : prompts;
}

std::vector<GenerateSpec> RandomSpecs(std::mt19937& random, int64_t vocabulary, int prompts) {
  auto draw = [&](uint32_t low, uint32_t high) { return low + static_cast<uint32_t>(random() % (high - low + 1)); };
  std::vector<uint32_t> opening;  // shared by some prompts, for the prefix cache
  for (int i = 0; i < 200; ++i) opening.push_back(draw(1, static_cast<uint32_t>(vocabulary) - 1));
  std::vector<GenerateSpec> specs;
  for (int p = 0; p < prompts; ++p) {
    GenerateSpec spec = {.group = {0, static_cast<uint64_t>(p), 0}};
    if (p % 3 == 0) spec.prompt = opening;
    for (uint32_t i = draw(1, p % 4 == 0 ? 600 : 60); i > 0; --i) {
      spec.prompt.push_back(draw(1, static_cast<uint32_t>(vocabulary) - 1));
    }
    for (uint32_t s = 0; s < draw(1, 9); ++s) spec.siblings.push_back(s);
    spec.sampling.max_tokens = draw(1, p % 5 == 0 ? 700 : 250);
    spec.sampling.ignore_eos = true;
    spec.sampling.untempered_logprobs = true;
    spec.sampling.seed = 7;
    const double temperatures[] = {1.0, 1.0, 0.7, 1.3, 0};
    spec.sampling.temperature = temperatures[p % 5];
    if (p % 20 == 11) spec.sampling.top_k = 50;
    if (p % 20 == 13) spec.sampling.top_p = 0.9;
    if (p % 20 == 6) spec.sampling.penalties = {.repetition = 1.2};
    if (p % 20 == 12) spec.sampling.penalties = {.presence = 0.5, .frequency = 0.3};
    specs.push_back(spec);
  }
  return specs;
}

Completions Generate(RandomPolicy& policy, const std::vector<GenerateSpec>& specs,
                     EngineOptions options, KvOptions kv) {
  auto model = *rollout::DecoderStepModel::Create(policy.slots(), kv);
  sync::RealClock clock;
  rollout::EngineCore core(options, *model, policy.text(), clock, {});
  core.UseVersion({1, 0});
  Completions completions;
  for (const GenerateSpec& spec : specs) {
    rollout::RequestCallbacks callbacks = {
        .on_sibling = [&, id = spec.group.prompt](FinishedSibling s) { completions[{id, s.sibling}] = std::move(s); },
        .on_end = [](absl::Status status) { EXPECT_TRUE(status.ok()) << status; }};
    auto request = rollout::MakeRequest(spec, callbacks, model->limits(), policy.text());
    EXPECT_TRUE(request.ok()) << request.status();
    if (request.ok()) core.Add(*request);
  }
  while (core.has_work()) {
    auto progress = core.Step();
    EXPECT_TRUE(progress.ok() && *progress) << progress.status();
    if (!progress.ok() || !*progress) break;
  }
  return completions;
}

struct Count {
  int64_t tokens = 0, different = 0;
  float largest = 0;

  void Add(const std::vector<float>& a, const std::vector<float>& b) {
    ASSERT_EQ(a.size(), b.size());
    for (size_t i = 0; i < a.size(); ++i) {
      ++tokens;
      if (a[i] == b[i]) continue;
      ++different;
      largest = std::max(largest, std::abs(a[i] - b[i]));
    }
  }
};

// A shape of random_policy.h; with " fp8" behind it keys and values are rounded.
class ExactnessTest : public testing::TestWithParam<std::string> {
 protected:
  static const ShapeOfModel& Shape() { return *FindShape(GetParam().substr(0, GetParam().find(' '))); }
  static trainer::TrainerSettings Settings() {
    trainer::TrainerSettings settings;
    settings.trained.kv_fp8 = GetParam().ends_with(" fp8");
    return settings;
  }
};

TEST_P(ExactnessTest, GeneratorTrainerAndReferenceGiveTheSameBits) {
  constexpr int64_t kLayers = 4;
  trainer::TrainerSettings settings = Settings();
  settings.schedule.peak = 1e-3;
  settings.microbatch_tokens = 6000;
  const bool routed = Shape().experts > 0;
  settings.router.replay = routed;
  RandomPolicy policy(WriteModelFolder(Shape(), kLayers), settings,
                      trainer::Sft(trainer::Aggregation::kTokenMean));
  EXPECT_TRUE(models::KeepsRowBits(policy.trainer().model().spec));  // what a job is held to
  const int64_t vocabulary = policy.trainer().model().spec.vocab_size;
  std::mt19937 random(11);
  Count by_trainer, by_reference, alone, of_temperature, of_options;
  for (int version = 0; version < 2; ++version) {
    const std::vector<GenerateSpec> specs = RandomSpecs(random, vocabulary, Prompts(GetParam()));
    Completions easy = Generate(policy, specs, {}, {.kv_tokens = 400'000, .expert_choices = routed});
    // Backwards, in small chunks, with few pages (preemption), without cache or graphs.
    Completions hard = Generate(policy, {specs.rbegin(), specs.rend()},
                                {.max_running = 37, .step_tokens = 150, .prefix_cache = false},
                                {.kv_tokens = 9'000, .capture = false});
    std::vector<trainer::TrainingSequence> train;
    std::vector<policy::ScoredSequence> score;
    std::vector<const FinishedSibling*> done;
    std::vector<double> temperature;
    for (const GenerateSpec& spec : specs) {
      for (uint32_t sibling : spec.siblings) {
        const FinishedSibling& one = easy.at({spec.group.prompt, sibling});
        const FinishedSibling& other = hard.at({spec.group.prompt, sibling});
        EXPECT_EQ(one.tokens, other.tokens);
        if (one.tokens == other.tokens) {
          of_options.Add(one.logprobs, other.logprobs);
          of_options.Add(one.untempered_logprobs, other.untempered_logprobs);
        }
        trainer::TrainingSequence t{.id = std::to_string(spec.group.prompt)};
        policy::ScoredSequence s{.tokens = spec.prompt, .prefix = static_cast<uint32_t>(spec.prompt.size())};
        s.tokens.insert(s.tokens.end(), one.tokens.begin(), one.tokens.end());
        t.token_ids.assign(s.tokens.begin(), s.tokens.end());
        t.loss_mask.assign(s.tokens.size(), 1);
        std::fill_n(t.loss_mask.begin(), s.prefix, 0);
        t.expert_choices = one.expert_choices;
        EXPECT_EQ(t.expert_choices.empty(), !routed);
        train.push_back(t);
        score.push_back(s);
        done.push_back(&one);
        const bool plain = spec.sampling.top_k == 0 && spec.sampling.top_p == 1 && !spec.sampling.penalties.any();
        temperature.push_back(plain && spec.sampling.temperature > 0 ? spec.sampling.temperature : 0);
      }
    }
    auto trained = *policy.trainer().Score(train);
    auto referenced = *policy::ScoreSequences(policy.slots().decoder(), score, 1.0);
    for (size_t i = 0; i < done.size(); ++i) {
      by_trainer.Add(done[i]->untempered_logprobs, trained[i]);
      by_reference.Add(done[i]->untempered_logprobs, referenced[i]);
      if (i % 16 == 0) {
        alone.Add(done[i]->untempered_logprobs,
                  (*policy::ScoreSequences(policy.slots().decoder(), {score[i]}, 1.0))[0]);
      }
    }
    for (double t : {1.0, 0.7, 1.3}) {
      std::vector<policy::ScoredSequence> some;
      std::vector<size_t> which;
      for (size_t i = 0; i < done.size(); ++i) {
        if (temperature[i] != t) continue;
        some.push_back(score[i]);
        which.push_back(i);
      }
      if (some.empty()) continue;
      auto tempered = *policy::ScoreSequences(policy.slots().decoder(), some, t);
      for (size_t i = 0; i < which.size(); ++i) of_temperature.Add(done[which[i]]->logprobs, tempered[i]);
    }
    // What the training pass itself computes, under autograd, must be the same again.
    auto pass = policy.trainer().ForwardBackward({train.begin(), train.begin() + std::min<size_t>(train.size(), 12)});
    ASSERT_TRUE(pass.ok()) << pass.status();
    for (const trainer::Metric& m : pass->metrics) {  // the trainer's routers choose what the generator's did
      EXPECT_TRUE(m.name != "router_differing" || m.value == 0) << m.value;
    }
    for (size_t i = 0; i < pass->logprobs.size(); ++i) by_trainer.Add(done[i]->untempered_logprobs, pass->logprobs[i]);
    ASSERT_TRUE(policy.trainer().OptimStep(1e-3).ok());
    policy.Publish();
  }
  for (auto [name, count] : {std::pair{"trainer", by_trainer}, {"reference", by_reference}, {"alone", alone},
                             {"tempered", of_temperature}, {"other options", of_options}}) {
    std::printf("%s, %s: %ld of %ld tokens differ, at most %g\n", GetParam().c_str(), name, count.different, count.tokens,
                count.largest);
    EXPECT_EQ(count.different, 0) << name;
    EXPECT_GT(count.tokens, 0) << name;
  }
}

// Each step begins before the host has seen the last token, which the penalty must know all the same.
TEST_P(ExactnessTest, PenalisedTokensAreTheLikeliestOfWhatThePenaltiesLeave) {
  RandomPolicy policy(WriteModelFolder(Shape(), /*layers=*/4), Settings(), trainer::Sft(trainer::Aggregation::kTokenMean));
  GenerateSpec spec = {.group = {0, 0, 0}, .prompt = {5, 9, 17, 9}, .siblings = {0}};
  spec.sampling.max_tokens = 60;
  spec.sampling.ignore_eos = true;
  spec.sampling.temperature = 0;
  spec.sampling.penalties = {.repetition = 1.3, .presence = 0.4, .frequency = 0.2};
  const FinishedSibling done = Generate(policy, {spec}, {}, {.kv_tokens = 4096}).at({0, 0});
  ASSERT_EQ(done.tokens.size(), 60u);
  at::NoGradGuard no_grad;
  std::vector<int64_t> tokens(spec.prompt.begin(), spec.prompt.end());
  for (uint32_t token : done.tokens) {
    const models::Decoder& decoder = policy.slots().decoder();
    at::Tensor hidden = decoder.Hidden(at::tensor(tokens, at::kLong).to(at::kCUDA),
                                       nn::PackedSequences({static_cast<int64_t>(tokens.size())}, at::kCUDA));
    at::Tensor logits = decoder.Logits(hidden.narrow(0, hidden.size(0) - 1, 1)).to(at::kCPU, at::kFloat);
    float* logit = logits.mutable_data_ptr<float>();
    std::map<int64_t, int> count;  // of what was written; 0: only in the prompt
    for (size_t i = 0; i < tokens.size(); ++i) count[tokens[i]] += i >= spec.prompt.size() ? 1 : 0;
    for (auto [id, written] : count) {
      logit[id] = logit[id] > 0 ? logit[id] / 1.3f : logit[id] * 1.3f;
      if (written > 0) logit[id] -= 0.4f + 0.2f * static_cast<float>(written);
    }
    EXPECT_GE(logit[token], logits.max().item<float>() - 0.03f) << tokens.size();  // bf16 logits: ties
    tokens.push_back(token);
  }
}

// What `rein debug mismatch` shows where nothing is wrong: not only the log-probs are equal.
TEST_P(ExactnessTest, EveryLayerOfEveryTokenHasTheSameBits) {
  constexpr int64_t kLayers = 4;
  RandomPolicy policy(WriteModelFolder(Shape(), kLayers), Settings(), trainer::Sft(trainer::Aggregation::kTokenMean));
  std::mt19937 random(5);
  for (uint32_t prefix : {1u, 300u}) {
    policy::ScoredSequence sequence{.prefix = prefix};
    for (uint32_t i = 0; i < prefix + 150; ++i) {
      sequence.tokens.push_back(static_cast<uint32_t>(random() % static_cast<uint32_t>(policy.trainer().model().spec.vocab_size)));
    }
    auto once = policy::TraceAtOnce(policy.trainer().decoder(), sequence, 0.8);
    auto steps = rollout::TraceInSteps(policy.slots(), sequence, 0.8);
    ASSERT_TRUE(once.ok() && steps.ok()) << once.status() << steps.status();
    EXPECT_EQ(once->stages(), static_cast<size_t>(kLayers + 2));
    EXPECT_EQ(once->digest, steps->digest);
    EXPECT_EQ(once->norm, steps->norm);
    EXPECT_EQ(once->logprob, steps->logprob);
    EXPECT_EQ(once->logprob.size(), 150u);
  }
}

std::string TestName(const testing::TestParamInfo<std::string>& info) {
  std::string name = info.param;
  for (char& c : name) {
    if (std::isalnum(static_cast<unsigned char>(c)) == 0) c = '_';
  }
  return name;
}

INSTANTIATE_TEST_SUITE_P(Families, ExactnessTest, testing::ValuesIn(ShapeNames("small-")), TestName);
INSTANTIATE_TEST_SUITE_P(Shapes, ExactnessTest,
                         testing::Values("qwen3-0.6b", "qwen2.5-0.5b", "llama3.2-1b", "smollm2-135m", "olmoe-1b-7b-4l", "mixtral-small-4l",
                                         "qwen3-0.6b fp8", "qwen2.5-0.5b fp8"),
                         TestName);

}  // namespace
}  // namespace rein::gpu

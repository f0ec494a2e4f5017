// The engine over real decoders: what it generates equals what one forward pass over the whole
// sequence says, whatever the batch.

#include "rollout/engine/decoder_step_model.h"

#include <algorithm>
#include <filesystem>
#include <map>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/models/model_folder.h"
#include "common/policy/layer_trace.h"
#include "rollout/engine/engine_core.h"
#include "rollout/engine/step_trace.h"
#include "rollout/sampling/sampler.h"
#include "tests/golden/golden_folders.h"

namespace rein::rollout {
namespace {

using ::testing::HasSubstr;
using Completions = std::map<std::pair<uint64_t, uint32_t>, FinishedSibling>;

class DecoderStepModelTest : public testing::TestWithParam<std::string> {
 protected:
  DecoderStepModelTest()
      : folder_("tests/golden/models/" + GetParam()),
        description_(*models::DescribeModel(folder_)),
        slots_(*policy::PolicySlots::Create(description_.spec, {})),
        text_(*text::ModelText::Load(folder_)) {
    absl::Status status = slots_->LoadFolder(folder_, description_);
    EXPECT_TRUE(status.ok()) << status;
  }

  static GenerateSpec Spec(uint64_t prompt, uint32_t length, uint32_t siblings) {
    GenerateSpec spec = {.group = {0, prompt, 0}};
    for (uint32_t i = 0; i < length; ++i) spec.prompt.push_back((prompt * 31 + i * 7) % 50);
    for (uint32_t s = 0; s < siblings; ++s) spec.siblings.push_back(s);
    spec.sampling.max_tokens = 12;
    spec.sampling.ignore_eos = true;
    spec.sampling.untempered_logprobs = true;
    spec.sampling.temperature = prompt % 2 == 0 ? 1.0 : 0.7;
    if (prompt % 3 == 0) spec.sampling.top_k = 20;
    return spec;
  }

  Completions Generate(const std::vector<GenerateSpec>& specs, EngineOptions options,
                       KvOptions kv = {.kv_tokens = 2048, .page_tokens = 4}) {
    auto model = *DecoderStepModel::Create(*slots_, kv);
    EngineCore core(options, *model, *text_, clock_, {});
    core.UseVersion({1, 0});
    Completions completions;
    for (const GenerateSpec& spec : specs) {
      RequestCallbacks callbacks = {
          .on_sibling =
              [&, id = spec.group.prompt](FinishedSibling s) { completions[{id, s.sibling}] = s; },
          .on_end = [](absl::Status status) { EXPECT_TRUE(status.ok()) << status; }};
      auto request = MakeRequest(spec, callbacks, model->limits(), *text_);
      EXPECT_TRUE(request.ok()) << request.status();
      core.Add(*request);
    }
    while (core.has_work()) {
      auto progress = core.Step();
      EXPECT_TRUE(progress.ok() && *progress) << progress.status();
      if (!progress.ok() || !*progress) break;
    }
    return completions;
  }

  // Of each token of a completion, by the weights in use.
  std::vector<float> LogprobsOfOnePass(const GenerateSpec& spec, const std::vector<uint32_t>& completion) {
    std::vector<int64_t> tokens(spec.prompt.begin(), spec.prompt.end());
    tokens.insert(tokens.end(), completion.begin(), completion.end());
    const auto prompt = static_cast<int64_t>(spec.prompt.size()), drawn = static_cast<int64_t>(completion.size());
    const at::Tensor hidden = slots_->decoder().Hidden(
        at::tensor(tokens, at::kLong), nn::PackedSequences({static_cast<int64_t>(tokens.size())}, at::kCPU));
    const at::Tensor targets = at::tensor(tokens, at::kLong).narrow(0, prompt, drawn);
    const at::Tensor logprob =
        slots_->decoder().Logprobs(hidden.narrow(0, prompt - 1, drawn), targets, 1.0).logprob_N.contiguous();
    return {logprob.const_data_ptr<float>(), logprob.const_data_ptr<float>() + drawn};
  }

  // Takes the folder's weights into use, each multiplied by `scale`.
  void UseScaled(double scale, const weights::Version& version) {
    const weights::Registry& registry = slots_->registry();
    at::Tensor arena = at::zeros({registry.arena_elements()});
    ASSERT_TRUE(models::LoadWeights(folder_, description_, registry, arena).ok());
    arena *= scale;
    ASSERT_TRUE(slots_->Write(0, static_cast<const char*>(arena.const_data_ptr()), arena.nbytes()).ok());
    ASSERT_TRUE(slots_->TakeIntoUse(version, weights::InFlight::kContinue).ok());
  }

  const std::string folder_;
  models::ModelDescription description_;
  std::unique_ptr<policy::PolicySlots> slots_;
  std::unique_ptr<text::ModelText> text_;
  sync::RealClock clock_;
};

// Whether LibTorch's products of as many rows as the engine pads to give a row the same bits whatever the rows beside it.
bool ProductsKeepRows() {
  for (int64_t inner : {8, 24, 64}) {
    for (int64_t width : {8, 24, 61, 64}) {
      const at::Tensor weight = at::randn({width, inner}), row = at::randn({1, inner});
      at::Tensor first;
      for (int64_t blocks : {1, 2, 3, 4, 8, 16}) {
        at::Tensor x = at::randn({blocks * kRowPadding, inner});
        for (int64_t place : {int64_t{0}, x.size(0) - 1}) x.narrow(0, place, 1).copy_(row);
        at::Tensor y = at::linear(x, weight);
        if (!first.defined()) first = y[0].clone();
        if (!at::equal(y[0], first) || !at::equal(y[-1], first)) return false;
      }
    }
  }
  return true;
}

// Largest relative difference of norms, by stage.
std::vector<double> NormDifferences(const policy::LayerTrace& a, const policy::LayerTrace& b) {
  std::vector<double> largest(a.stages(), 0);
  for (size_t s = 0; s < a.stages(); ++s) {
    EXPECT_EQ(a.norm[s].size(), b.norm[s].size());
    for (size_t t = 0; t < a.norm[s].size(); ++t) {
      largest[s] = std::max(largest[s], std::abs(double{a.norm[s][t]} - double{b.norm[s][t]}) / double{a.norm[s][t]});
    }
  }
  return largest;
}

TEST_P(DecoderStepModelTest, ATraceInStepsIsTheTraceOfOneForwardPass) {
  policy::ScoredSequence sequence{.prefix = 7};
  for (uint32_t i = 0; i < 23; ++i) sequence.tokens.push_back((i * 11 + 3) % 50);
  auto once = policy::TraceAtOnce(slots_->decoder(), sequence, 0.7);
  ASSERT_TRUE(once.ok()) << once.status();
  auto steps = TraceInSteps(*slots_, sequence, 0.7);
  ASSERT_TRUE(steps.ok()) << steps.status();
  ASSERT_EQ(once->stages(), static_cast<size_t>(description_.spec.num_layers) + 2);
  ASSERT_EQ(steps->stages(), once->stages());
  EXPECT_EQ(steps->digest[0], once->digest[0]);  // the embeddings are copies of rows
  const double tolerance = description_.spec.delta.key_heads > 0 ? 1e-4 : 1e-5;
  for (double difference : NormDifferences(*once, *steps)) EXPECT_LT(difference, tolerance);
  ASSERT_EQ(steps->logprob.size(), 16u);
  for (size_t i = 0; i < 16; ++i) EXPECT_NEAR(steps->logprob[i], once->logprob[i], tolerance);
}

// What the trace is for: the first stage that differs is the layer whose weights do.
TEST_P(DecoderStepModelTest, ATraceNamesTheLayerThatComputesSomethingElse) {
  const weights::Registry& registry = slots_->registry();
  at::Tensor arena = at::zeros({registry.arena_elements()});
  ASSERT_TRUE(models::LoadWeights(folder_, description_, registry, arena).ok());
  const int last = description_.spec.num_layers - 1;
  for (const weights::Parameter& parameter : registry.parameters()) {
    if (parameter.spec.partition.layer == last) arena.narrow(0, parameter.offset, parameter.elements) *= 1.5;
  }
  auto changed = *models::Decoder::Create(description_.spec, registry, arena);
  const policy::ScoredSequence sequence{.tokens = {3, 14, 15, 9, 26, 5}, .prefix = 2};
  auto right = policy::TraceAtOnce(slots_->decoder(), sequence, 1), wrong = policy::TraceAtOnce(*changed, sequence, 1);
  ASSERT_TRUE(right.ok() && wrong.ok()) << right.status() << wrong.status();
  const auto stage = static_cast<size_t>(last) + 1;  // behind the embeddings
  for (size_t s = 0; s < stage; ++s) EXPECT_EQ(right->digest[s], wrong->digest[s]) << s;
  EXPECT_NE(right->digest[stage], wrong->digest[stage]);
  EXPECT_GT(NormDifferences(*right, *wrong)[stage], 1e-3);
}

TEST_P(DecoderStepModelTest, LogprobsAreThoseOfOneForwardPass) {
  at::NoGradGuard no_grad;
  GenerateSpec spec = Spec(2, 11, 4);
  // A recurrence in chunks and one token at a time round differently.
  const double tolerance = description_.spec.delta.key_heads > 0 ? 1e-4 : 1e-5;
  for (auto& [key, done] : Generate({spec}, {})) {
    const std::vector<float> wanted = LogprobsOfOnePass(spec, done.tokens);
    for (size_t i = 0; i < done.tokens.size(); ++i) {
      EXPECT_NEAR(done.logprobs[i], wanted[i], tolerance);
      EXPECT_NEAR(done.untempered_logprobs[i], wanted[i], tolerance);
    }
  }
}

// New weights arrive in the middle: with keys and values computed anew each later token is drawn from just what these
// weights say, so that the trainer's forward pass by them has its log-prob; with those of the old weights it is not.
TEST_P(DecoderStepModelTest, AfterKeysAndValuesWereComputedAnewLogprobsAreThoseOfTheNewWeights) {
  at::NoGradGuard no_grad;
  const double tolerance = description_.spec.delta.key_heads > 0 ? 1e-4 : 1e-5;
  for (const bool recompute : {true, false}) {
    ASSERT_TRUE(slots_->LoadFolder(folder_, description_).ok());
    auto model = *DecoderStepModel::Create(*slots_, {.kv_tokens = 2048, .page_tokens = 4});
    EngineCore core({}, *model, *text_, clock_, {});
    core.UseVersion({1, 0});
    const GenerateSpec spec = Spec(2, 11, 3);
    Completions completions;
    auto request = MakeRequest(
        spec, {.on_sibling = [&](FinishedSibling s) { completions[{2, s.sibling}] = s; }, .on_end = [](absl::Status) {}},
        model->limits(), *text_);
    ASSERT_TRUE(request.ok()) << request.status();
    core.Add(*request);
    for (int i = 0; i < 5; ++i) ASSERT_TRUE(core.Step().ok());
    ASSERT_TRUE(core.Settle().ok());
    UseScaled(1.1, {1, 1});
    core.UseVersion({1, 1}, recompute);
    while (core.has_work()) ASSERT_TRUE(core.Step().ok());
    double largest = 0;
    for (auto& [key, done] : completions) {
      ASSERT_EQ(done.versions.size(), 2u);
      const size_t first = done.versions[0].tokens;
      const std::vector<float> wanted = LogprobsOfOnePass(spec, done.tokens);
      for (size_t i = first; i < done.tokens.size(); ++i) {
        largest = std::max(largest, std::abs(double{done.logprobs[i]} - double{wanted[i]}));
      }
    }
    EXPECT_EQ(largest < tolerance, recompute) << largest;
  }
}

// Each log-prob is that of the logits of one forward pass, penalised by what stood before.
TEST_P(DecoderStepModelTest, PenaltiesCountWhatWasSeen) {
  at::NoGradGuard no_grad;
  GenerateSpec spec = Spec(2, 5, 3);
  spec.sampling.penalties = {.repetition = 1.5, .presence = 0.25, .frequency = 100};
  for (auto& [key, done] : Generate({spec}, {})) {
    std::vector<uint32_t> seen = spec.prompt;
    std::vector<int64_t> tokens(spec.prompt.begin(), spec.prompt.end());
    tokens.insert(tokens.end(), done.tokens.begin(), done.tokens.end());
    at::Tensor hidden = slots_->decoder().Hidden(
        at::tensor(tokens, at::kLong),
        nn::PackedSequences({static_cast<int64_t>(tokens.size())}, at::kCPU));
    for (size_t i = 0; i < done.tokens.size(); ++i) {
      const uint32_t token = done.tokens[i];
      at::Tensor logits = slots_->decoder().Logits(
          hidden.narrow(0, static_cast<int64_t>(spec.prompt.size() + i) - 1, 1)).to(at::kFloat);
      RowDraw row{.penalties = spec.sampling.penalties, .seen = seen, .prompt_tokens = spec.prompt.size()};
      const float own = logits.log_softmax(1)[0][token].item<float>();
      Penalise({row}, logits);
      EXPECT_NEAR(done.logprobs[i], logits.log_softmax(1)[0][token].item<float>(), 1e-4);
      EXPECT_NEAR(done.untempered_logprobs[i], own, 1e-4);
      EXPECT_EQ(std::count(done.tokens.begin(), done.tokens.begin() + static_cast<std::ptrdiff_t>(i), token), 0)
          << "a second time costs 100";
      seen.push_back(token);
    }
  }
}

// Wherever CheckRowsStable() does not object: it may do so only where LibTorch's own products are to blame, as with the oldest
// of MKL's kernels.
TEST_P(DecoderStepModelTest, TheBatchChangesNoBit) {
  if (absl::Status stable = (*DecoderStepModel::Create(*slots_, {.kv_tokens = 4096, .page_tokens = 4}))->CheckRowsStable(); !stable.ok()) {
    ASSERT_FALSE(ProductsKeepRows()) << stable;
    GTEST_SKIP() << stable;
  }
  std::vector<GenerateSpec> specs;
  for (uint64_t p = 0; p < 12; ++p) specs.push_back(Spec(p, 1 + 3 * p, 1 + p % 4));
  Completions together = Generate(specs, {});
  Completions alone;
  for (const GenerateSpec& spec : specs) alone.merge(Generate({spec}, {.prefix_cache = false}));
  // Small chunks, few pages: prompts in pieces, preemptions, recomputation.
  Completions hard = Generate({specs.rbegin(), specs.rend()}, {.max_running = 5, .step_tokens = 16},
                              {.kv_tokens = 140, .page_tokens = 4});
  ASSERT_EQ(alone.size(), together.size());
  for (const auto& [key, done] : together) {
    EXPECT_EQ(done.tokens, alone[key].tokens) << key.first << "/" << key.second;
    EXPECT_EQ(done.logprobs, alone[key].logprobs) << "bit for bit";
    EXPECT_EQ(done.tokens, hard[key].tokens);
    EXPECT_EQ(done.logprobs, hard[key].logprobs);
  }
}

// Which experts each token went to comes with its completion, whatever the batch, and one forward pass that replays them
// computes what it does without: its own choices are the same.
TEST_P(DecoderStepModelTest, ExpertChoicesAreThoseOfOneForwardPass) {
  at::NoGradGuard no_grad;
  const models::DecoderSpec& spec = description_.spec;
  const int64_t routers = spec.routers_before(spec.num_layers), chosen = spec.experts.routing.chosen;
  const std::vector<GenerateSpec> specs = {Spec(2, 11, 4), Spec(3, 4, 1), Spec(4, 11, 2)};
  for (const auto& [key, done] : Generate({specs[0]}, {})) EXPECT_TRUE(done.expert_choices.empty()) << "nobody asked";
  const KvOptions kept{.kv_tokens = 2048, .page_tokens = 4, .expert_choices = true};
  Completions hard = Generate(specs, {.max_running = 3, .step_tokens = 8}, {.kv_tokens = 100, .page_tokens = 4, .expert_choices = true});
  for (const auto& [key, done] : Generate(specs, {}, kept)) {
    EXPECT_EQ(done.expert_choices, hard[key].expert_choices) << "bit for bit";
    const GenerateSpec& of = *std::find_if(specs.begin(), specs.end(), [&](const auto& s) { return s.group.prompt == key.first; });
    std::vector<int64_t> tokens(of.prompt.begin(), of.prompt.end());
    tokens.insert(tokens.end(), done.tokens.begin(), done.tokens.end() - 1);
    const auto length = static_cast<int64_t>(tokens.size());
    ASSERT_EQ(done.expert_choices.size(), static_cast<size_t>(2 * length * routers * chosen));
    if (routers == 0) continue;
    at::Tensor replay = at::from_blob(const_cast<char*>(done.expert_choices.data()), {length, routers, chosen}, at::kShort).to(at::kLong);
    EXPECT_GE(replay.min().item<int64_t>(), 0);
    EXPECT_LT(replay.max().item<int64_t>(), spec.experts.routing.experts);
    auto hidden = [&](const std::shared_ptr<nn::RouterRecord>& record) {
      return slots_->decoder().Hidden(at::tensor(tokens, at::kLong), nn::PackedSequences({length}, at::kCPU), false, record);
    };
    auto same = slots_->decoder().NewRouterRecord(), other = slots_->decoder().NewRouterRecord();
    same->replay_TRK = replay;
    EXPECT_LE((hidden(same) - hidden(slots_->decoder().NewRouterRecord())).abs().max().item<float>(), 1e-5);
    EXPECT_EQ(same->replayed.item<float>(), static_cast<float>(replay.numel()));
    EXPECT_EQ(same->differing.item<float>(), 0);
    // Another expert for one token, and one token that is left to the router.
    other->replay_TRK = replay.clone();
    const std::vector<int64_t> taken(replay[2][0].const_data_ptr<int64_t>(), replay[2][0].const_data_ptr<int64_t>() + chosen);
    int64_t free = 0;
    while (std::count(taken.begin(), taken.end(), free) > 0) ++free;
    other->replay_TRK[2][0][0] = free;
    other->replay_TRK[1].fill_(-1);
    at::Tensor moved = (hidden(other) - hidden(same)).abs().amax(1);
    EXPECT_GT(moved[2].item<float>(), 1e-5);
    EXPECT_LE(moved[1].item<float>(), 1e-5);
    EXPECT_EQ(other->replayed.item<float>(), static_cast<float>(replay.numel() - routers * chosen));
    EXPECT_GE(other->differing.item<float>(), 1);
  }
}

TEST_P(DecoderStepModelTest, RowsAreStableHere) {
  auto model = *DecoderStepModel::Create(*slots_, {.kv_tokens = 4096, .page_tokens = 4});
  absl::Status status = model->CheckRowsStable();
  EXPECT_TRUE(status.ok() || !ProductsKeepRows()) << status;
  ASSERT_TRUE(slots_->FillWithPattern().ok());
  at::NoGradGuard no_grad;
  at::Tensor hidden = slots_->decoder().Hidden(at::arange(8), nn::PackedSequences({8}, at::kCPU));
  EXPECT_TRUE(hidden.isfinite().all().item<bool>());
  EXPECT_GT(hidden.abs().max().item<float>(), 0);
  EXPECT_EQ(model->CheckRowsStable().ok(), status.ok()) << "other weights, the same products";
}

TEST_P(DecoderStepModelTest, BadSizesAreRefused) {
  const int64_t context = description_.spec.max_positions;
  EXPECT_THAT(std::string(DecoderStepModel::Create(
                              *slots_, {.max_length = static_cast<uint32_t>(context) + 1})
                              .status()
                              .message()),
              HasSubstr("want at most the model's context of"));
  absl::Status status = DecoderStepModel::Create(*slots_, {.kv_tokens = 3}).status();
  EXPECT_TRUE(absl::IsResourceExhausted(status));
  EXPECT_THAT(std::string(status.message()), HasSubstr("room for 3 tokens"));
  EXPECT_THAT(std::string(policy::PolicySlots::Create(description_.spec, {.dtype = at::kBFloat16})
                              .status()
                              .message()),
              HasSubstr("a CPU computes in float32 only"));
}

INSTANTIATE_TEST_SUITE_P(Families, DecoderStepModelTest, testing::ValuesIn(GoldenFolders()),
                         [](const auto& i) { return i.param; });

}  // namespace
}  // namespace rein::rollout

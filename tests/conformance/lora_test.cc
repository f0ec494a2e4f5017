// Low-rank updates against `peft` on the adapters of tests/golden/adapters: logits, loss and the gradient of every adapter
// tensor. Self-consistency: saved and loaded, merged and apart, one token at a time through pages.

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/checkpoint/safetensors.h"
#include "common/models/decoder.h"
#include "common/models/lora.h"

namespace rein::models {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using ::testing::HasSubstr;

constexpr const char* kLlama = "tests/golden/models/llama";

struct Loaded {
  ModelDescription description;
  weights::Registry registry;
  at::Tensor compute, grad;
  std::unique_ptr<Decoder> decoder;

  ArenaParts parts() const { return PartsOf(registry, compute); }
};

Loaded Over(ModelDescription description) {
  Loaded m;
  m.description = std::move(description);
  m.registry = *weights::Registry::Create(DecoderParameters(m.description.spec));
  m.compute = at::zeros({m.registry.arena_elements()}, at::kFloat);
  m.grad = at::zeros({m.registry.trained_elements()});
  m.decoder = *Decoder::Create(m.description.spec, m.registry, m.compute, m.grad);
  return m;
}

Loaded Load(const std::string& folder) {
  Loaded m = Over(*DescribeModel(folder));
  absl::Status status = LoadWeights(folder, m.description, m.registry, m.compute);
  EXPECT_TRUE(status.ok()) << status;
  return m;
}

at::Tensor LogitsOf(const Loaded& m, const std::vector<std::vector<int64_t>>& rows) {
  at::NoGradGuard no_grad;
  std::vector<int64_t> packed, lengths;
  for (const auto& row : rows) {
    packed.insert(packed.end(), row.begin(), row.end());
    lengths.push_back(static_cast<int64_t>(row.size()));
  }
  return m.decoder->Logits(m.decoder->Hidden(at::tensor(packed, at::kLong), nn::PackedSequences(lengths, at::kCPU)));
}

double Furthest(const at::Tensor& a, const at::Tensor& b) { return (a - b).abs().max().item<double>(); }

std::vector<std::string> Adapters() {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator("tests/golden/adapters")) names.push_back(entry.path().filename());
  std::sort(names.begin(), names.end());
  return names;
}

class LoraTest : public testing::TestWithParam<std::string> {
 protected:
  LoraTest()
      : folder_("tests/golden/adapters/" + GetParam()), golden_(json::parse(std::ifstream(folder_ + "/golden.json"))),
        rows_(json::parse(std::ifstream("tests/golden/models/" + GetParam() + "/golden.json"))["tokens"]),
        m_(Load(folder_)) {}

  std::string folder_;
  json golden_;
  std::vector<std::vector<int64_t>> rows_;
  Loaded m_;
};

// A module of several parts is written with one block for each: their gradients are added up.
at::Tensor OfModule(const checkpoint::SafetensorsFile& saved, const std::string& name, int64_t rank) {
  const checkpoint::TensorView& view = *saved.Find(name);
  at::Tensor g = at::from_blob(const_cast<char*>(view.data), view.shape, at::kFloat);
  if (!absl::StrContains(name, ".lora_")) return g;  // a module that is saved whole
  if (absl::StrContains(name, "lora_A")) return g.view({-1, rank, g.size(1)}).sum(0);
  return g.view({g.size(0), -1, rank}).sum(1);
}

TEST_P(LoraTest, LogitsLossAndGradientsMatchPeft) {
  std::vector<double> wanted;
  for (const auto& row : golden_["logits"]) {
    for (double x : row) wanted.push_back(x);
  }
  EXPECT_LE(Furthest(LogitsOf(m_, rows_).view(-1), at::tensor(wanted, at::kFloat)), 1e-4);
  EXPECT_LT(m_.grad.numel(), m_.compute.numel() / 3) << "gradients are of adapters alone";

  std::vector<int64_t> packed, lengths, source, target;
  for (const auto& row : rows_) {
    for (size_t i = 0; i + 1 < row.size(); ++i) {
      source.push_back(static_cast<int64_t>(packed.size() + i));
      target.push_back(row[i + 1]);
    }
    packed.insert(packed.end(), row.begin(), row.end());
    lengths.push_back(static_cast<int64_t>(row.size()));
  }
  auto original = *checkpoint::SafetensorsFile::Open(folder_ + "/adapter_model.safetensors");
  for (bool recompute : {false, true}) {
    m_.grad.zero_();
    at::Tensor hidden = m_.decoder->Hidden(at::tensor(packed, at::kLong), nn::PackedSequences(lengths, at::kCPU), recompute);
    at::Tensor loss = -m_.decoder->Logprobs(hidden.index_select(0, at::tensor(source, at::kLong)),
                                            at::tensor(target, at::kLong), 1.0).logprob_N.mean();
    EXPECT_NEAR(loss.item<double>(), golden_["loss"].get<double>(), 2e-5);
    loss.backward();
    const std::string out = testing::TempDir() + "/lora_gradients_" + GetParam();
    ASSERT_TRUE(SaveAdapterFolder(out, m_.description, m_.registry, {m_.parts().frozen, m_.grad}, "").ok());
    auto saved = *checkpoint::SafetensorsFile::Open(out + "/adapter_model.safetensors");
    for (const auto& [name, figures] : golden_["gradients"].items()) {
      ASSERT_NE(saved->Find(name), nullptr) << name;
      const auto& shape = original->Find(name)->shape;
      at::Tensor g = OfModule(*saved, name, absl::StrContains(name, "lora_B") ? shape[1] : shape[0]).to(at::kDouble).flatten();
      const double norm = figures[0];
      EXPECT_NEAR(g.norm().item<double>(), norm, 1e-4 * norm + 1e-7) << name;
      EXPECT_NEAR(g.sum().item<double>(), figures[1], 1e-3 * norm + 1e-6) << name;
      EXPECT_NEAR(g.dot(at::arange(g.numel(), at::kDouble).cos()).item<double>(), figures[2], 1e-3 * norm + 1e-6) << name;
    }
    fs::remove_all(out);
  }
}

TEST_P(LoraTest, SavedAndMergedAreTheSameModel) {
  at::Tensor logits = LogitsOf(m_, rows_);
  const std::string out = testing::TempDir() + "/lora_saved_" + GetParam();
  ASSERT_TRUE(SaveAdapterFolder(out, m_.description, m_.registry, m_.parts(), "").ok());
  EXPECT_LE(Furthest(LogitsOf(Load(out), rows_), logits), 1e-5);
  auto merged = Merge(m_.description, m_.registry, m_.parts());
  ASSERT_TRUE(merged.ok()) << merged.status();
  ASSERT_TRUE(SaveModelFolder(out + "_merged", merged->model, merged->registry, merged->arena, "").ok());
  Loaded whole = Load(out + "_merged");
  EXPECT_TRUE(whole.registry.trains_all());
  EXPECT_LE(Furthest(LogitsOf(whole, rows_), logits), 1e-4);
  fs::remove_all(out);
  fs::remove_all(out + "_merged");
}

// A folder of a family whose matrices are tensors of their own is written as PEFT wrote it.
TEST(LoraFolderTest, TensorsAreThoseOfPeft) {
  const std::string folder = "tests/golden/adapters/qwen3", out = testing::TempDir() + "/lora_bytes";
  Loaded m = Load(folder);
  ASSERT_TRUE(SaveAdapterFolder(out, m.description, m.registry, m.parts(), "").ok());
  auto theirs = *checkpoint::SafetensorsFile::Open(folder + "/adapter_model.safetensors");
  auto ours = *checkpoint::SafetensorsFile::Open(out + "/adapter_model.safetensors");
  ASSERT_EQ(ours->tensors().size(), theirs->tensors().size());
  for (const auto& [name, view] : theirs->tensors()) {
    ASSERT_NE(ours->Find(name), nullptr) << name;
    EXPECT_EQ(ours->Find(name)->shape, view.shape) << name;
    EXPECT_EQ(std::memcmp(ours->Find(name)->data, view.data, view.size_bytes), 0) << name;
  }
  json config = json::parse(std::ifstream(out + "/adapter_config.json"));
  EXPECT_EQ(config["r"], 4);
  EXPECT_DOUBLE_EQ(config["lora_alpha"].get<double>() / 4, 8 / std::sqrt(4.0)) << "rslora's scale";
  EXPECT_EQ(config["target_modules"].size(), 14u);
  fs::remove_all(out);
}

TEST_P(LoraTest, DecodeEqualsPrefill) {
  at::NoGradGuard no_grad;
  const std::vector<int64_t>& row = rows_[0];
  const auto n = static_cast<int64_t>(row.size());
  at::Tensor token = at::tensor(row, at::kLong);
  at::Tensor wanted = m_.decoder->Hidden(token, nn::PackedSequences({n}, at::kCPU));
  constexpr int64_t kPage = 4;
  auto layers = m_.decoder->NewPages(8, kPage);
  at::Tensor pages = at::arange(0, 8, at::kInt).view({1, 8});
  const double tolerance = m_.description.spec.recurrent() ? 1e-3 : 5e-5;
  for (int64_t i = 0; i < n; ++i) {
    nn::SequenceView step = nn::PackedSequences({1}, at::kCPU);
    step.position_T = at::tensor({i}, at::kLong);
    nn::PageMap map{&layers, kPage, at::tensor({i}, at::kLong), pages, {i + 1}};
    step.context_B = step.context_B + i;
    step.pages = &map;
    EXPECT_LE(Furthest(m_.decoder->Hidden(token.narrow(0, i, 1), step)[0], wanted[i]), tolerance) << i;
  }
}

INSTANTIATE_TEST_SUITE_P(Adapters, LoraTest, testing::ValuesIn(Adapters()), [](const auto& i) { return i.param; });

TEST(LoraStartTest, BeginsAsTheBase) {
  const std::vector<std::vector<int64_t>> rows = {{5, 9, 7, 8, 4, 30}};
  for (const char* folder : {"llama", "mixtral", "qwen3_next", "deepseek_v2"}) {
    const std::string path = absl::StrCat("tests/golden/models/", folder);
    Loaded m = Over(*DescribeTrained(path, {.lora = LoraChoice{.rank = 8}}));
    InitializeAdapter(m.registry, 3, m.parts());
    ASSERT_TRUE(LoadWeights(path, m.description, m.registry, m.compute).ok());
    EXPECT_TRUE(at::equal(LogitsOf(m, rows), LogitsOf(Load(path), rows))) << folder;
    for (const weights::Parameter& p : m.registry.parameters()) {
      at::Tensor data = m.parts().Of(m.registry, p);
      if (absl::EndsWith(p.spec.name, kLoraUp)) {
        EXPECT_EQ(data.abs().max().item<float>(), 0) << p.spec.name;
      } else if (absl::EndsWith(p.spec.name, kLoraDown)) {
        const double most = 1 / std::sqrt(static_cast<double>(p.spec.shape[1]));
        EXPECT_LE(data.abs().max().item<float>(), most) << p.spec.name;
        EXPECT_GT(data.abs().max().item<float>(), 0.9 * most) << p.spec.name;
        EXPECT_NEAR(data.mean().item<float>(), 0, 0.2 * most) << p.spec.name;
      }
    }
    // Every expert has its own.
    EXPECT_EQ(m.registry.Find("layers.1.experts.3.down.lora_b") != nullptr, m.description.spec.experts.routing.experts > 0);
    EXPECT_EQ(m.registry.Find("layers.0.router.lora_a"), nullptr);
    EXPECT_EQ(m.registry.Find("head.lora_a"), nullptr);
  }
}

TEST(LoraTargetTest, NamesMatchWholeOrByTheirEnd) {
  EXPECT_TRUE(MatchesName("q_proj", "model.layers.0.self_attn.q_proj"));
  EXPECT_TRUE(MatchesName("layers.1*.q_proj", "model.layers.10.self_attn.q_proj"));
  EXPECT_TRUE(MatchesName("attention.*", "layers.0.attention.q"));
  EXPECT_FALSE(MatchesName("proj", "model.layers.0.self_attn.q_proj"));
  EXPECT_FALSE(MatchesName("layers.1.*", "model.layers.10.self_attn.q_proj"));
}

TEST(LoraTargetTest, SaysWhatIsWrong) {
  auto error = [](TrainedChoice choice, const std::string& path = kLlama) {
    return std::string(DescribeTrained(path, choice).status().message());
  };
  auto target = [&](const char* name) { return error({.lora = LoraChoice{.rank = 4, .targets = {name}}}); };
  EXPECT_EQ(target("self_attn.*"), "");
  EXPECT_THAT(target("q_prj"), HasSubstr("model.lora.target: 'q_prj' names no matrix of this model; did you mean q_proj?"));
  EXPECT_THAT(target("lm_head"), HasSubstr("only what has no update: head (lm_head) is the head"));
  EXPECT_THAT(target("embed_tokens"), HasSubstr("is an embedding"));
  EXPECT_THAT(error({.lora = LoraChoice{.rank = 4, .targets = {"router"}}}, "tests/golden/models/mixtral"), HasSubstr("is a router"));
  auto save = [&](const char* name, const std::string& path = kLlama) {
    return error({.lora = LoraChoice{.rank = 4, .targets = {"q_proj"}, .save = {name}}}, path);
  };
  EXPECT_EQ(save("lm_head"), "");
  EXPECT_EQ(save("embed_tokens"), "");
  EXPECT_EQ(save("mlp.down_proj"), "") << "any module";
  EXPECT_THAT(save("lm_haed"), HasSubstr("model.lora.save: 'lm_haed' names no parameter of this model; did you mean lm_head?"));
  EXPECT_THAT(save("q_proj"), HasSubstr("it has an update: name it in target or in save"));
  EXPECT_THAT(save("embed_tokens", "tests/golden/models/qwen2"), HasSubstr("the head is tied to it, which PEFT would untie"));
  EXPECT_THAT(error({.lora = LoraChoice{.rank = 4, .targets = {"o_proj"}, .save = {"gate_up_proj"}}}, "tests/golden/models/phi3"),
              HasSubstr("holds other parameters too"));
  EXPECT_THAT(error({.freeze = {"embed_token"}}), HasSubstr("model.freeze: 'embed_token' names no parameter of this model; did you mean"));
  EXPECT_THAT(error({.freeze = {"*"}}), HasSubstr("leaves nothing to train"));
  EXPECT_THAT(error({.lora = LoraChoice{.rank = 4}}, "tests/golden/adapters/llama"), HasSubstr("is an adapter folder"));

  const std::string copy = testing::TempDir() + "/lora_wrong";
  auto wrong = [&](json change) {
    fs::remove_all(copy);
    fs::copy("tests/golden/adapters/llama", copy);
    json config = json::parse(std::ifstream(copy + "/adapter_config.json"));
    config["base_model_name_or_path"] = fs::absolute(kLlama).string();
    config.merge_patch(change);
    std::ofstream(copy + "/adapter_config.json") << config;
    return std::string(DescribeModel(copy).status().message());
  };
  EXPECT_EQ(wrong(json::object()), "");
  EXPECT_THAT(wrong({{"use_dora", true}}), HasSubstr("use_dora is true, which is not supported"));
  EXPECT_THAT(wrong({{"peft_type", "IA3"}}), HasSubstr("peft_type is \"IA3\", want \"LORA\""));
  EXPECT_THAT(wrong({{"modules_to_save", {"lm_head"}}}), HasSubstr("modules_to_save has \"lm_head\", of which adapter_model.safetensors has no tensor"));
  EXPECT_THAT(wrong({{"bias", "all"}}), HasSubstr("bias is \"all\", which is not supported"));
  EXPECT_THAT(wrong({{"base_model_name_or_path", "meta-llama/Llama-3"}}),
              HasSubstr("base_model_name_or_path is \"meta-llama/Llama-3\", which is no folder of this machine"));
  EXPECT_THAT(wrong({{"base_model_name_or_path", fs::absolute("tests/golden/models/qwen3_moe").string()}}),
              HasSubstr("tensor(s) update nothing of Qwen3MoeForCausalLM: base_model.model.model.layers.1.mlp.down_proj.lora_A"));
  fs::remove_all(copy);
}

// A base in 8 or 4 bits computes what a base of the unpacked numbers does, bit for bit, and gives adapters the same gradients;
// what stands beside the matrices is as it was.
TEST(QuantisedBaseTest, IsTheBaseOfItsNumbers) {
  const std::vector<int64_t> tokens = {5, 9, 7, 8, 4, 30, 11, 23};
  const std::vector<std::vector<int64_t>> rows = {tokens};
  int covered = 0;  // families in nf4
  for (const char* folder : {"llama", "gpt2", "mixtral", "qwen2_moe", "qwen3_next", "deepseek_v2", "deepseek_v3", "gpt_oss"}) {
    const std::string path = absl::StrCat("tests/golden/models/", folder);
    for (weights::Quantisation format : {weights::Quantisation::kInt8, weights::Quantisation::kNf4}) {
      const TrainedChoice choice{.lora = LoraChoice{.rank = 4}};
      TrainedChoice packed_choice = choice;
      packed_choice.base = format;
      Loaded plain = Over(*DescribeTrained(path, choice));
      ModelDescription packed = *DescribeTrained(path, packed_choice);
      auto created = weights::Registry::Create(DecoderParameters(packed.spec));
      if (!created.ok()) {  // tiny shapes
        EXPECT_THAT(std::string(created.status().message()), HasSubstr("nf4 wants a multiple of 64")) << folder;
        EXPECT_EQ(format, weights::Quantisation::kNf4) << folder;
        continue;
      }
      covered += format == weights::Quantisation::kNf4;
      const weights::Registry& registry = *created;
      EXPECT_EQ(registry.trained_elements(), plain.registry.trained_elements());
      EXPECT_GT(registry.quantised_elements(), 0);
      at::Tensor arena = at::zeros({registry.arena_elements()}), grad = at::zeros({registry.trained_elements()});
      ArenaParts parts = PartsOf(registry, arena);
      parts.quantised = NewQuantised(registry, at::kCPU);
      EXPECT_EQ(parts.quantised.code.nbytes() + parts.quantised.scale.nbytes(), static_cast<size_t>(registry.quantised_bytes()));
      for (const Loaded* m : {&plain}) InitializeAdapter(m->registry, 3, m->parts());
      InitializeAdapter(registry, 3, parts);
      ASSERT_TRUE(LoadWeights(path, plain.description, plain.registry, plain.compute).ok());
      ASSERT_TRUE(LoadWeights(path, packed, registry, parts).ok());
      int quantised = 0;
      for (const weights::Parameter& p : registry.parameters()) {
        at::Tensor theirs = plain.parts().Of(plain.registry, *plain.registry.Find(p.spec.name)).view(p.spec.shape);
        if (p.spec.quantisation == weights::Quantisation::kNone) {
          EXPECT_TRUE(at::equal(parts.Of(registry, p).view(p.spec.shape), theirs)) << p.spec.name;
          if (p.spec.name.find(".lora_b") != std::string::npos) {  // or the updates would be zeros
            theirs.copy_(at::sin(at::arange(theirs.numel()) * 0.7).view(theirs.sizes()) * 0.02);
            parts.Of(registry, p).copy_(theirs.flatten());
          }
          continue;
        }
        ++quantised;
        at::Tensor numbers = nn::Unpacked(parts.MatrixOf(registry, p));
        const double error = ((numbers - theirs).norm() / theirs.norm()).item<double>();
        EXPECT_LT(error, format == weights::Quantisation::kInt8 ? 0.02 : 0.15) << p.spec.name;
        EXPECT_GT(error, 0) << p.spec.name;
        theirs.copy_(numbers);
      }
      EXPECT_GT(quantised, 3 * packed.spec.num_layers);
      auto decoder = *Decoder::Create(packed.spec, registry, parts, grad);
      Loaded over{packed, registry, arena, grad, std::move(decoder)};
      EXPECT_TRUE(at::equal(LogitsOf(over, rows), LogitsOf(plain, rows))) << folder;
      for (const Loaded* m : std::initializer_list<const Loaded*>{&plain, &over}) {
        at::Tensor hidden = m->decoder->Hidden(at::tensor(tokens, at::kLong), nn::PackedSequences({8}, at::kCPU));
        m->decoder->Logprobs(hidden, at::tensor(tokens, at::kLong), 1.0).logprob_N.sum().backward();
      }
      EXPECT_GT(plain.grad.abs().max().item<float>(), 0);
      EXPECT_TRUE(at::equal(over.grad, plain.grad)) << folder;
      auto merged = Merge(packed, registry, parts);
      ASSERT_TRUE(merged.ok()) << merged.status();
      EXPECT_TRUE(at::equal(merged->arena, Merge(plain.description, plain.registry, plain.parts())->arena)) << folder;
    }
  }
  EXPECT_GE(covered, 4);
}

TEST(QuantisedBaseTest, SaysWhatCannotBe) {
  TrainedChoice whole{.base = weights::Quantisation::kNf4};
  EXPECT_THAT(std::string(DescribeTrained(kLlama, whole).status().message()),
              HasSubstr("quantised weights have no gradient: want model.lora, or an adapter folder"));
  EXPECT_TRUE(DescribeTrained("tests/golden/adapters/llama", whole).ok()) << "an adapter folder says itself what it updates";
  auto specs = [](weights::ParameterSpec spec) { return std::string(weights::Registry::Create({std::move(spec)}).status().message()); };
  weights::ParameterSpec odd{"x.weight", {3, 40}, {}, true, false, false, weights::Quantisation::kNf4};
  EXPECT_THAT(specs(odd), HasSubstr("parameter x.weight [3, 40] has 120 numbers, nf4 wants a multiple of 64; int8 takes any"));
  odd.quantisation = weights::Quantisation::kInt8;
  EXPECT_EQ(specs(odd), "");
  odd.trained = true;
  EXPECT_THAT(specs(odd), HasSubstr("is quantised, want a matrix that is not trained"));

  // A number that is not finite is named before anything is computed with its block.
  const std::string copy = testing::TempDir() + "/quantised_nan";
  fs::remove_all(copy);
  Loaded m = Load(kLlama);
  const weights::Parameter& down = *m.registry.Find("layers.1.mlp.down.weight");
  m.parts().Of(m.registry, down)[7] = std::nan("");
  ASSERT_TRUE(SaveModelFolder(copy, m.description, m.registry, m.compute, "").ok());
  ModelDescription packed = *DescribeTrained(copy, {.lora = LoraChoice{.rank = 4}, .base = weights::Quantisation::kInt8});
  const weights::Registry registry = *weights::Registry::Create(DecoderParameters(packed.spec));
  at::Tensor arena = at::zeros({registry.arena_elements()});
  ArenaParts parts = PartsOf(registry, arena);
  parts.quantised = NewQuantised(registry, at::kCPU);
  EXPECT_THAT(std::string(LoadWeights(copy, packed, registry, parts).message()),
              HasSubstr("layers.1.mlp.down.weight has a number that is not finite and cannot be quantised"));
  fs::remove_all(copy);
}

TEST(FreezeTest, FrozenParametersStandInFrontAndHaveNoGradient) {
  Loaded m = Over(*DescribeTrained(kLlama, {.freeze = {"embed_tokens", "layers.0.*", "k_proj"}}));
  const weights::Registry& r = m.registry;
  EXPECT_FALSE(r.InTrainedPart(*r.Find("embedding.weight")));
  EXPECT_FALSE(r.InTrainedPart(*r.Find("layers.0.mlp.down.weight")));
  EXPECT_TRUE(r.InTrainedPart(*r.Find("layers.1.attention.k.weight"))) << "it is read as one matrix with q and v";
  EXPECT_FALSE(r.Find("layers.1.attention.k.weight")->spec.trained);
  EXPECT_EQ(m.grad.numel(), r.arena_elements() - r.trained_begin());
  ASSERT_TRUE(LoadWeights(kLlama, m.description, r, m.compute).ok());
  const std::vector<std::vector<int64_t>> rows = {{5, 9, 7, 8, 4, 30}};
  EXPECT_TRUE(at::equal(LogitsOf(m, rows), LogitsOf(Load(kLlama), rows)));
}

}  // namespace
}  // namespace rein::models

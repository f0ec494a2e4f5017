// One suite over every model family. Parity: logits, loss and gradients of `transformers` on the tiny
// folders of tests/golden/models. Self-consistency: save and load, packed and alone, prefill and decode.

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>

#include "absl/strings/str_cat.h"
#include "common/checkpoint/durable_file.h"
#include "common/checkpoint/safetensors.h"
#include "common/models/decoder.h"
#include "common/models/model_folder.h"
#include "tests/golden/golden_folders.h"

namespace rein::models {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using ::testing::HasSubstr;

struct Loaded {
  ModelDescription description;
  weights::Registry registry;
  at::Tensor compute, grad;
  std::unique_ptr<Decoder> decoder;
};

Loaded Load(const std::string& folder) {
  Loaded m;
  m.description = *DescribeModel(folder);
  m.registry = *weights::Registry::Create(DecoderParameters(m.description.spec));
  m.compute = at::zeros({m.registry.arena_elements()}, at::kFloat);
  m.grad = at::zeros_like(m.compute);
  absl::Status status = LoadWeights(folder, m.description, m.registry, m.compute);
  EXPECT_TRUE(status.ok()) << status;
  m.decoder = *Decoder::Create(m.description.spec, m.registry, m.compute, m.grad);
  return m;
}

class FamilyTest : public testing::TestWithParam<std::string> {
 protected:
  FamilyTest()
      : folder_("tests/golden/models/" + GetParam()),
        golden_(json::parse(std::ifstream(folder_ + "/golden.json"))),
        m_(Load(folder_)) {}

  std::string folder_;
  json golden_;
  Loaded m_;
};

TEST(FamilyTableTest, EveryFamilyHasAGolden) {
  std::set<std::string> covered;
  for (const std::string& name : GoldenFolders()) {
    covered.insert(DescribeModel("tests/golden/models/" + name)->spec.architecture);
  }
  for (const ModelFamily* family : AllFamilies()) {
    EXPECT_EQ(covered.count(family->architecture), 1u) << family->architecture;
  }
}

// The gradients, laid out as the checkpoint's tensors.
void ExpectGradients(const Loaded& m, const json& golden) {
  const std::string out = testing::TempDir() + "/gradients_" + m.description.family->model_type;
  absl::Status saved = SaveModelFolder(out, m.description, m.registry, m.grad, "");
  ASSERT_TRUE(saved.ok()) << saved;
  auto file = *checkpoint::SafetensorsFile::Open(out + "/model.safetensors");
  for (const auto& [name, wanted] : golden.items()) {
    const checkpoint::TensorView* view = file->Find(name);
    ASSERT_NE(view, nullptr) << name;
    at::Tensor g = at::from_blob(const_cast<char*>(view->data), view->shape, at::kFloat).to(at::kDouble).flatten();
    const double norm = wanted[0];
    EXPECT_NEAR(g.norm().item<double>(), norm, 1e-4 * norm + 1e-7) << name;
    EXPECT_NEAR(g.sum().item<double>(), wanted[1], 1e-3 * norm + 1e-6) << name;
    at::Tensor wave = at::arange(g.numel(), at::kDouble).cos();
    EXPECT_NEAR(g.dot(wave).item<double>(), wanted[2], 1e-3 * norm + 1e-6) << name;
  }
  fs::remove_all(out);
}

TEST_P(FamilyTest, LogitsLossAndGradientsMatchTransformers) {
  auto rows = golden_["tokens"].get<std::vector<std::vector<int64_t>>>();
  std::vector<int64_t> packed, lengths, source, target;
  for (const auto& row : rows) {
    for (size_t i = 0; i + 1 < row.size(); ++i) {
      source.push_back(packed.size() + i);
      target.push_back(row[i + 1]);
    }
    packed.insert(packed.end(), row.begin(), row.end());
    lengths.push_back(row.size());
  }
  std::vector<double> wanted;
  for (const auto& row : golden_["logits"]) {
    for (double x : row) wanted.push_back(x);
  }
  for (bool recompute : {false, true}) {
    m_.grad.zero_();
    nn::SequenceView view = nn::PackedSequences(lengths, at::kCPU);
    auto routers = m_.decoder->NewRouterRecord();
    at::Tensor hidden = m_.decoder->Hidden(at::tensor(packed, at::kLong), view, recompute, routers);
    at::Tensor logits = m_.decoder->Logits(hidden.detach());
    const double error = (logits.view(-1) - at::tensor(wanted, at::kFloat)).abs().max().item<double>();
    RecordProperty("logits_error", absl::StrCat(error));
    EXPECT_LE(error, 1e-4);
    nn::TokenLogprobs out = m_.decoder->Logprobs(
        hidden.index_select(0, at::tensor(source, at::kLong)), at::tensor(target, at::kLong), 1.0);
    at::Tensor loss = -out.logprob_N.mean();
    const double balance = routers == nullptr ? 0 : routers->BalanceLoss();
    EXPECT_NEAR(loss.item<double>() + balance, golden_["loss"].get<double>(), 2e-5);
    EXPECT_EQ(balance > 0, m_.description.spec.experts.balance > 0);
    loss.backward();
    ExpectGradients(m_, golden_["gradients"]);
    if (routers == nullptr) continue;
    int64_t sparse = 0;
    for (int64_t n = 0; n < m_.description.spec.num_layers; ++n) sparse += m_.description.spec.layer(n).sparse;
    const auto tokens = static_cast<int64_t>(packed.size());
    EXPECT_EQ(routers->rows, tokens * sparse) << "what the backward pass runs again is not counted";
    EXPECT_EQ(routers->choices_LE.sum().item<int64_t>(),
              tokens * sparse * m_.description.spec.experts.routing.chosen);
  }
}

// A prompt in two chunks, then one token at a time, through pages that other sequences stand between.
TEST_P(FamilyTest, GreedyContinuationMatchesTransformers) {
  at::NoGradGuard no_grad;
  auto tokens = golden_["tokens"][0].get<std::vector<int64_t>>();
  const auto wanted = golden_["greedy"].get<std::vector<int64_t>>();
  constexpr int64_t kPage = 4, kPages = 8;
  auto layers = m_.decoder->NewPages(2 * kPages, kPage);
  at::Tensor pages = (at::arange(kPages, at::kInt) * 2 + 1).view({1, kPages});
  std::vector<int64_t> drawn;
  for (int64_t done = 0, n = 5; drawn.size() < wanted.size();) {
    nn::SequenceView step = nn::PackedSequences({n}, at::kCPU);
    step.position_T = step.position_T + done;
    step.context_B = step.context_B + done;
    at::Tensor page = pages[0].index_select(0, step.position_T.div(kPage, "floor")).to(at::kLong);
    nn::PageMap map{&layers, kPage, page * kPage + step.position_T.remainder(kPage), pages};
    step.pages = &map;
    std::vector<int64_t> now(tokens.begin() + done, tokens.begin() + done + n);
    at::Tensor hidden = m_.decoder->Hidden(at::tensor(now, at::kLong), step);
    done += n;
    if (done == static_cast<int64_t>(tokens.size())) {
      drawn.push_back(m_.decoder->Logits(hidden.narrow(0, n - 1, 1)).argmax().item<int64_t>());
      tokens.push_back(drawn.back());
    }
    n = drawn.empty() ? static_cast<int64_t>(tokens.size()) - done : 1;
  }
  EXPECT_EQ(drawn, wanted);
}

TEST_P(FamilyTest, SaveThenLoadGivesTheSameBytes) {
  const std::string out = testing::TempDir() + "/saved_" + GetParam();
  at::Tensor bf16 = m_.compute.to(at::kBFloat16);
  ASSERT_TRUE(SaveModelFolder(out, m_.description, m_.registry, bf16, "").ok());
  Loaded again = Load(out);
  EXPECT_TRUE(at::equal(again.compute, m_.compute));
  fs::remove_all(out);
}

TEST_P(FamilyTest, PackedEqualsAloneAndDecodeEqualsPrefill) {
  at::NoGradGuard no_grad;
  const std::vector<int64_t> lengths = {9, 1, 14};
  at::manual_seed(5);
  at::Tensor token = at::randint(m_.description.spec.vocab_size, {24}, at::kLong);
  nn::SequenceView view = nn::PackedSequences(lengths, at::kCPU);
  at::Tensor packed = m_.decoder->Hidden(token, view);
  constexpr int64_t kPage = 4;
  auto layers = m_.decoder->NewPages(16, kPage);
  // A recurrence in chunks and one token at a time round differently, and what is rounded is normalised again.
  const bool recurrent = m_.description.spec.recurrent();
  const double packed_tolerance = recurrent ? 3e-4 : 1e-5, tolerance = recurrent ? 1e-3 : 2e-5;
  int64_t first_page = 0;
  for (size_t b = 0; b < lengths.size(); ++b) {
    at::Tensor own = token.narrow(0, view.offsets[b], lengths[b]);
    at::Tensor wanted = packed.narrow(0, view.offsets[b], lengths[b]);
    at::Tensor alone = m_.decoder->Hidden(own, nn::PackedSequences({lengths[b]}, at::kCPU));
    EXPECT_LE((alone - wanted).abs().max().item<float>(), packed_tolerance);
    for (int64_t i = 0; i < lengths[b]; ++i) {  // one token at a time
      nn::SequenceView step = nn::PackedSequences({1}, at::kCPU);
      step.position_T = at::tensor({i}, at::kLong);
      at::Tensor pages = at::arange(first_page, first_page + 4, at::kInt).view({1, 4});
      nn::PageMap map{&layers, kPage, at::tensor({first_page * kPage + i}, at::kLong), pages, {i + 1}};
      step.pages = &map;
      at::Tensor decoded = m_.decoder->Hidden(own.narrow(0, i, 1), step);
      EXPECT_LE((decoded[0] - wanted[i]).abs().max().item<float>(), tolerance) << i;
    }
    first_page += 4;
  }
}

INSTANTIATE_TEST_SUITE_P(Families, FamilyTest, testing::ValuesIn(GoldenFolders()),
                         [](const auto& i) { return i.param; });

// config.json as models on the Hugging Face Hub have it, with the number of parameters that the Hub counts.
TEST(ModelConfigTest, PublishedConfigsAreTaken) {
  const std::string path = testing::TempDir() + "/published_config.json";
  for (const json& model : json::parse(std::ifstream("tests/conformance/published_configs.json"))) {
    std::ofstream(path) << model["config"];
    auto description = DescribeModel(path);
    ASSERT_TRUE(description.ok()) << model["name"] << ": " << description.status();
    auto registry = *weights::Registry::Create(DecoderParameters(description->spec));
    EXPECT_EQ(registry.parameter_count(), model["parameters"].get<int64_t>()) << model["name"];
  }
}

TEST(ModelConfigTest, SaysWhatIsWrong) {
  const std::string path = testing::TempDir() + "/config.json";
  auto error = [&](json change) {
    json config = json::parse(std::ifstream("tests/golden/models/qwen3/config.json"));
    config.merge_patch(change);
    std::ofstream(path) << config;
    return std::string(DescribeModel(path).status().message());
  };
  EXPECT_EQ(error(json::object()), "");
  const std::string unknown = error({{"architectures", {"MambaForCausalLM"}}});
  EXPECT_THAT(unknown, HasSubstr("\"MambaForCausalLM\"], which is not supported; supported: "));
  EXPECT_THAT(unknown, HasSubstr("LlamaForCausalLM, "));
  EXPECT_THAT(error({{"hidden_size", -3}}), HasSubstr("hidden_size is -3, want 1 to"));
  EXPECT_THAT(error({{"vocab_size", nullptr}}), HasSubstr("vocab_size is missing"));
  EXPECT_THAT(error({{"num_key_value_heads", 3}}), HasSubstr("does not divide 4 attention heads"));
  EXPECT_THAT(error({{"hidden_act", "mish"}}), HasSubstr("hidden_act is \"mish\", want silu, gelu"));
  EXPECT_THAT(error({{"rope_parameters", {{"rope_type", "xpos"}}}}), HasSubstr("rope_scaling.rope_type is 'xpos'"));
  EXPECT_THAT(error({{"rope_parameters", {{"alpha", 2}}}}), HasSubstr("rope_scaling.alpha is 2, a key that this family"));
  EXPECT_THAT(error({{"logit_softcapping", 30}}), HasSubstr("logit_softcapping is 30, a key that this family does not know"));
  EXPECT_THAT(error({{"output_router_logits", true}}), HasSubstr("output_router_logits is true, but this family has no"));
  EXPECT_THAT(error({{"quantization_config", {{"quant_method", "gptq"}}}}), HasSubstr("quant_method 'gptq', which is not"));
  EXPECT_THAT(error({{"architectures", {"XForCausalLM"}}, {"auto_map", {{"AutoModel", "x.X"}}}}),
              HasSubstr("own code by auto_map, which is never run"));
  std::ofstream(path) << "[";
  EXPECT_THAT(std::string(DescribeModel(path).status().message()), HasSubstr("config.json: parse error at line 1"));
  EXPECT_TRUE(absl::IsNotFound(DescribeModel("/nonexistent").status()));
}

}  // namespace
}  // namespace rein::models

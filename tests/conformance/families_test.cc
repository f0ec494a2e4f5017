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

#include "common/checkpoint/durable_file.h"
#include "common/models/decoder.h"
#include "common/models/model_folder.h"

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
  FamilyTest() : folder_("tests/golden/models/" + GetParam()), m_(Load(folder_)) {}

  std::string folder_;
  Loaded m_;
};

std::vector<std::string> Folders() {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator("tests/golden/models")) {
    names.push_back(entry.path().filename());
  }
  std::sort(names.begin(), names.end());
  return names;
}

TEST(FamilyTableTest, EveryFamilyHasAGolden) {
  std::set<std::string> covered;
  for (const std::string& name : Folders()) {
    covered.insert(DescribeModel("tests/golden/models/" + name)->spec.architecture);
  }
  for (const ModelFamily* family : AllFamilies()) {
    EXPECT_EQ(covered.count(family->architecture), 1u) << family->architecture;
  }
}

TEST_P(FamilyTest, LogitsLossAndGradientsMatchTransformers) {
  json golden = json::parse(std::ifstream(folder_ + "/golden.json"));
  auto rows = golden["tokens"].get<std::vector<std::vector<int64_t>>>();
  std::vector<int64_t> packed, lengths, source, target;
  for (const auto& row : rows) {
    for (size_t i = 0; i + 1 < row.size(); ++i) {
      source.push_back(packed.size() + i);
      target.push_back(row[i + 1]);
    }
    packed.insert(packed.end(), row.begin(), row.end());
    lengths.push_back(row.size());
  }
  for (bool recompute : {false, true}) {
    m_.grad.zero_();
    nn::SequenceView view = nn::PackedSequences(lengths, at::kCPU);
    at::Tensor hidden = m_.decoder->Hidden(at::tensor(packed, at::kLong), view, recompute);
    at::Tensor logits = m_.decoder->Logits(hidden.detach());
    std::vector<double> wanted;
    for (const auto& row : golden["logits"]) {
      for (double x : row) wanted.push_back(x);
    }
    EXPECT_LE((logits.view(-1) - at::tensor(wanted, at::kFloat)).abs().max().item<float>(), 1e-4);
    nn::TokenLogprobs out = m_.decoder->Logprobs(
        hidden.index_select(0, at::tensor(source, at::kLong)), at::tensor(target, at::kLong), 1.0);
    at::Tensor loss = -out.logprob_N.mean();
    EXPECT_NEAR(loss.item<double>(), golden["loss"].get<double>(), 2e-5);
    loss.backward();
    for (const weights::Parameter& p : m_.registry.parameters()) {
      const std::string name = m_.description.family->checkpoint_name(p.spec.name);
      at::Tensor g = m_.grad.narrow(0, p.offset, p.elements).to(at::kDouble);
      const double norm = golden["gradient_norms"][name];
      EXPECT_NEAR(g.norm().item<double>(), norm, 1e-4 * norm + 1e-7) << name;
      EXPECT_NEAR(g.sum().item<double>(), golden["gradient_sums"][name], 1e-3 * norm + 1e-6) << name;
    }
  }
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
  at::Tensor token = at::randint(m_.description.spec.vocab_size, {24}, at::kLong);
  nn::SequenceView view = nn::PackedSequences(lengths, at::kCPU);
  at::Tensor packed = m_.decoder->Hidden(token, view);
  constexpr int64_t kPage = 4;
  auto layers = m_.decoder->NewPages(16, kPage);
  int64_t first_page = 0;
  for (size_t b = 0; b < lengths.size(); ++b) {
    at::Tensor own = token.narrow(0, view.offsets[b], lengths[b]);
    at::Tensor wanted = packed.narrow(0, view.offsets[b], lengths[b]);
    at::Tensor alone = m_.decoder->Hidden(own, nn::PackedSequences({lengths[b]}, at::kCPU));
    EXPECT_LE((alone - wanted).abs().max().item<float>(), 1e-5);
    for (int64_t i = 0; i < lengths[b]; ++i) {  // one token at a time
      nn::SequenceView step = nn::PackedSequences({1}, at::kCPU);
      step.position_T = at::tensor({i}, at::kLong);
      at::Tensor pages = at::arange(first_page, first_page + 4, at::kInt).view({1, 4});
      nn::PageMap map{&layers, kPage, at::tensor({first_page * kPage + i}, at::kLong), pages, {i + 1}};
      step.pages = &map;
      at::Tensor decoded = m_.decoder->Hidden(own.narrow(0, i, 1), step);
      EXPECT_LE((decoded[0] - wanted[i]).abs().max().item<float>(), 2e-5) << i;
    }
    first_page += 4;
  }
}

TEST_P(FamilyTest, EveryMisfitIsListed) {
  const std::string out = testing::TempDir() + "/misfit_" + GetParam();
  fs::create_directories(out);
  fs::copy(folder_ + "/model.safetensors", out, fs::copy_options::overwrite_existing);
  json config = json::parse(std::ifstream(folder_ + "/config.json"));
  config["num_hidden_layers"] = 1;
  config["intermediate_size"] = 41;
  std::ofstream(out + "/config.json") << config;
  ModelDescription description = *DescribeModel(out);
  auto registry = *weights::Registry::Create(DecoderParameters(description.spec));
  std::string message(
      LoadWeights(out, description, registry, at::zeros({registry.arena_elements()})).message());
  EXPECT_THAT(message, HasSubstr("model.layers.0.mlp.up_proj.weight is BF16[40, 32], want F32, BF16 or "
                                 "F16 [41, 32]"));
  EXPECT_THAT(message, HasSubstr("model.layers.1.mlp.up_proj.weight is unknown to"));
  fs::remove_all(out);
}

INSTANTIATE_TEST_SUITE_P(Families, FamilyTest, testing::ValuesIn(Folders()),
                         [](const auto& i) { return i.param; });

TEST(ModelConfigTest, SaysWhatIsWrong) {
  const std::string path = testing::TempDir() + "/config.json";
  auto error = [&](json change) {
    json config = json::parse(std::ifstream("tests/golden/models/qwen3/config.json"));
    config.merge_patch(change);
    std::ofstream(path) << config;
    return std::string(DescribeModel(path).status().message());
  };
  EXPECT_EQ(error(json::object()), "");
  EXPECT_THAT(error({{"architectures", {"MambaForCausalLM"}}}),
              HasSubstr("\"MambaForCausalLM\"], which is not supported; supported: LlamaForCausalLM"));
  EXPECT_THAT(error({{"hidden_size", -3}}), HasSubstr("hidden_size is -3, want 1 to"));
  EXPECT_THAT(error({{"vocab_size", nullptr}}), HasSubstr("vocab_size is missing"));
  EXPECT_THAT(error({{"num_key_value_heads", 3}}), HasSubstr("does not divide 4 attention heads"));
  EXPECT_THAT(error({{"hidden_act", "gelu"}}), HasSubstr("hidden_act is \"gelu\", want \"silu\""));
  EXPECT_THAT(error({{"rope_parameters", {{"rope_type", "yarn"}}}}), HasSubstr("has type 'yarn'"));
  std::ofstream(path) << "[";
  EXPECT_THAT(std::string(DescribeModel(path).status().message()), HasSubstr("config.json: parse error at line 1"));
  EXPECT_TRUE(absl::IsNotFound(DescribeModel("/nonexistent").status()));
}

}  // namespace
}  // namespace rein::models

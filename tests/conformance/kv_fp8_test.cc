// Models whose keys and values are rounded to fp8: one pass over a text and one token at a time through pages are the
// same model, which is another than the one that rounds nothing.

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/models/decoder.h"
#include "common/models/lora.h"

namespace rein::models {
namespace {

using ::testing::HasSubstr;

class KvFp8Test : public testing::TestWithParam<const char*> {
 protected:
  std::unique_ptr<Decoder> Load(bool kv_fp8) {
    const std::string folder = std::string("tests/golden/models/") + GetParam();
    ModelDescription model = *DescribeTrained(folder, {.kv_fp8 = kv_fp8});
    auto registry = *weights::Registry::Create(DecoderParameters(model.spec));
    at::Tensor compute = at::zeros({registry.arena_elements()}, at::kFloat);
    absl::Status status = LoadWeights(folder, model, registry, compute);
    EXPECT_TRUE(status.ok()) << status;
    arenas_.push_back(compute);
    return *Decoder::Create(model.spec, registry, compute, {});
  }

  std::vector<at::Tensor> arenas_;
};

TEST_P(KvFp8Test, DecodingThroughPagesEqualsOnePass) {
  at::NoGradGuard no_grad;
  at::manual_seed(5);
  constexpr int64_t kTokens = 14, kPage = 4;
  auto full = Load(false), rounded = Load(true);
  at::Tensor token = at::randint(full->spec().vocab_size, {kTokens}, at::kLong);
  const nn::SequenceView view = nn::PackedSequences({kTokens}, at::kCPU);
  const at::Tensor wanted = rounded->Hidden(token, view);
  EXPECT_GT((full->Hidden(token, view) - wanted).abs().max().item<float>(), 1e-3);
  auto layers = rounded->NewPages(4, kPage);
  EXPECT_EQ(layers[0].key.scalar_type(), at::kFloat) << "no kernel reads pages of fp8 on a CPU";
  for (int64_t i = 0; i < kTokens; ++i) {
    nn::SequenceView step = nn::PackedSequences({1}, at::kCPU);
    step.position_T = at::tensor({i}, at::kLong);
    nn::PageMap map{&layers, kPage, at::tensor({i}, at::kLong), at::arange(4, at::kInt).view({1, 4}), {i + 1}};
    step.pages = &map;
    // Sums in another order: a key or value next to the middle of two of fp8's may be rounded the other way.
    EXPECT_LE((rounded->Hidden(token.narrow(0, i, 1), step)[0] - wanted[i]).abs().max().item<float>(), 5e-4) << i;
  }
}

INSTANTIATE_TEST_SUITE_P(Families, KvFp8Test, testing::Values("llama", "qwen3", "mistral", "gpt_oss"),
                         [](const auto& i) { return std::string(i.param); });

TEST(KvFp8ConfigTest, LatentsAreNotRounded) {
  EXPECT_THAT(std::string(DescribeTrained("tests/golden/models/deepseek_v3", {.kv_fp8 = true}).status().message()),
              HasSubstr("model.kv_cache: tests/golden/models/deepseek_v3 (DeepseekV3ForCausalLM) keeps latents"));
}

}  // namespace
}  // namespace rein::models

// A dense model and the mixture of experts that it becomes compute the same; then the experts grow apart.

#include "common/models/upcycle.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "common/models/decoder.h"
#include "common/models/model_folder.h"

namespace rein::models {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

at::Tensor LogitsOf(const std::string& folder) {
  at::NoGradGuard no_grad;
  ModelDescription model = *DescribeModel(folder);
  auto registry = *weights::Registry::Create(DecoderParameters(model.spec));
  at::Tensor arena = at::zeros({registry.arena_elements()});
  EXPECT_TRUE(LoadWeights(folder, model, registry, arena).ok());
  auto decoder = *Decoder::Create(model.spec, registry, arena);
  at::Tensor token = at::arange(3, 27, at::kLong);
  return decoder->Logits(decoder->Hidden(token, nn::PackedSequences({9, 15}, at::kCPU)));
}

TEST(UpcycleTest, TheMixtureComputesWhatTheDenseModelDid) {
  for (auto [dense, architecture] : {std::pair{"llama", "MixtralForCausalLM"}, {"mistral", "MixtralForCausalLM"}, {"qwen3", "Qwen3MoeForCausalLM"}}) {
    const std::string folder = std::string("tests/golden/models/") + dense, out = testing::TempDir() + "/upcycled_" + dense;
    fs::remove_all(out);
    auto made = Upcycle(folder, out, {.experts = 5, .chosen = 2});
    ASSERT_TRUE(made.ok()) << dense << ": " << made.status();
    EXPECT_EQ((*made)["architecture"], architecture);
    EXPECT_LE((LogitsOf(out) - LogitsOf(folder)).abs().max().item<float>(), 1e-5) << dense;
    EXPECT_TRUE(absl::IsAlreadyExists(Upcycle(folder, out, {}).status()));
    fs::remove_all(out);
  }
}

TEST(UpcycleTest, SaysWhatCannotBe) {
  auto error = [](const char* dense, UpcycleChoice choice) {
    return std::string(Upcycle(std::string("tests/golden/models/") + dense, testing::TempDir() + "/never", choice).status().message());
  };
  EXPECT_THAT(error("gpt2", {}), HasSubstr("GPT2LMHeadModel has no mixture of experts to become"));
  EXPECT_THAT(error("llama_biased", {}), HasSubstr("biases"));
  EXPECT_THAT(error("qwen3", {.experts = 2, .chosen = 3}), HasSubstr("--experts is 2 and --chosen 3"));
  EXPECT_FALSE(fs::exists(testing::TempDir() + "/never"));
}

}  // namespace
}  // namespace rein::models

// The cost model against what was measured: tests/bench/RESULTS.md.

#include "common/models/estimate.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

namespace rein::models {
namespace {

using nlohmann::json;

struct Shape {
  ModelDescription model;
  weights::Registry registry;
};

Shape Of(const char* family, int64_t dim, int64_t ffn, int64_t layers, int64_t heads, int64_t kv_heads, int64_t head_dim) {
  const std::string path = testing::TempDir() + "/estimate_config.json";
  json config = json::parse(std::ifstream(std::string("tests/golden/models/") + family + "/config.json"));
  config.erase("layer_types");
  config.merge_patch({{"hidden_size", dim}, {"intermediate_size", ffn}, {"num_hidden_layers", layers}, {"num_attention_heads", heads},
                      {"num_key_value_heads", kv_heads}, {"vocab_size", 151936}, {"max_position_embeddings", 40960},
                      {"tie_word_embeddings", true}});
  if (std::string(family) == "qwen3") config["head_dim"] = head_dim;
  std::ofstream(path) << config;
  Shape shape{*DescribeModel(path), {}};
  shape.registry = *weights::Registry::Create(DecoderParameters(shape.model.spec));
  return shape;
}

const Shape& Qwen3Small() { static const auto& s = *new Shape(Of("qwen3", 1024, 3072, 28, 16, 8, 128)); return s; }
const Shape& Qwen3Middle() { static const auto& s = *new Shape(Of("qwen3", 2048, 6144, 28, 16, 8, 128)); return s; }
const Shape& Qwen3Large() { static const auto& s = *new Shape(Of("qwen3", 2560, 9728, 36, 32, 8, 128)); return s; }

double Error(double estimated, double measured) { return std::abs(estimated / measured - 1); }

TEST(EstimateTest, TrainingSpeedIsThatOfTheBenchmarks) {
  auto speed = [](const Shape& s, int64_t length, bool recompute = false) {
    return TrainingTokensPerSecond(s.model.spec, s.registry, length, recompute);
  };
  EXPECT_LE(Error(speed(Qwen3Small(), 4096), 94.7e3), 0.05);
  EXPECT_LE(Error(speed(Qwen3Middle(), 4096), 47.1e3), 0.05);
  EXPECT_LE(Error(speed(Qwen3Large(), 4096), 20.2e3), 0.05);
  EXPECT_LE(Error(speed(Of("qwen2", 896, 4864, 24, 14, 2, 64), 1024), 151.5e3), 0.05);
  EXPECT_LE(Error(speed(Of("qwen2", 1536, 8960, 28, 12, 2, 128), 1024), 58.9e3), 0.05);
  EXPECT_LE(Error(speed(Qwen3Small(), 4096, true) / speed(Qwen3Small(), 4096), 58.1e3 / 84.0e3), 0.10);  // both at an earlier tree
}

TEST(EstimateTest, TrainingMemoryIsThatOfTheBenchmarks) {
  auto gib = [](const Shape& s, int64_t tokens, bool recompute = false) {
    EstimateChoice choice{.job = "sft", .length = 4096, .microbatch_tokens = tokens, .recompute = recompute};
    return static_cast<double>(EstimateTraining(s.model, s.registry, choice).total(1)) / (1 << 30);
  };
  EXPECT_LE(Error(gib(Qwen3Small(), 16384), 34), 0.05);
  EXPECT_LE(Error(gib(Qwen3Middle(), 16384), 64), 0.05);
  EXPECT_LE(Error(gib(Qwen3Large(), 16384), 133), 0.05);
  EXPECT_LE(Error(gib(Qwen3Small(), 4096, true), 12), 0.05);
}

TEST(EstimateTest, GenerationSpeedIsThatOfTheBenchmarks) {
  auto speed = [](const Shape& s, Gpu gpu, int64_t sequences, int64_t context, int64_t shared = 0, int64_t siblings = 1) {
    return GeneratedTokensPerSecond(s.model.spec, s.registry, gpu, sequences, context, shared, siblings);
  };
  // 256 requests that end one after the other: 122 at once on average, of about 820 tokens.
  EXPECT_LE(Error(speed(Qwen3Small(), Gpu::kH100, 122, 820), 18.3e3), 0.15);
  EXPECT_LE(Error(speed(Qwen3Middle(), Gpu::kH100, 122, 820), 15.3e3), 0.15);
  EXPECT_LE(Error(speed(Qwen3Small(), Gpu::kH200, 122, 820), 24.4e3), 0.15);
  EXPECT_LE(Error(speed(Qwen3Middle(), Gpu::kH200, 122, 820), 19.7e3), 0.15);
  EXPECT_LE(Error(speed(Qwen3Small(), Gpu::kH100, 256, 1536, 1024, 16), 27.6e3), 0.15);
  EXPECT_LE(Error(speed(Qwen3Small(), Gpu::kH200, 256, 1536, 1024, 16), 38.2e3), 0.15);
  EXPECT_LE(Error(speed(Qwen3Small(), Gpu::kH100, 1, 350), 721), 0.15);
  EXPECT_LE(Error(speed(Qwen3Small(), Gpu::kH200, 1, 350), 923), 0.15);
}

TEST(EstimateTest, LoraNeedsNoStateOfTheBase) {
  const std::string path = "tests/golden/models/qwen3";
  auto whole = *EstimateJob(path, {.job = "sft", .length = 32});
  auto lora = *EstimateJob(path, {.job = "sft", .length = 32, .trained = {.lora = LoraChoice{.rank = 2}}});
  EXPECT_EQ(whole["parameters"]["trained"], whole["parameters"]["all"]);
  EXPECT_LT(lora["parameters"]["trained"].get<int64_t>(), whole["parameters"]["all"].get<int64_t>() / 4);
  EXPECT_LT(lora["bytes"]["trainer"]["optimizer"].get<int64_t>(), whole["bytes"]["trainer"]["optimizer"].get<int64_t>() / 2);
  EXPECT_THAT(std::string(EstimateJob(path, {.length = 65}).status().message()), testing::HasSubstr("--length is 65, want 2 to 64"));
  EXPECT_THAT(EstimateJob("tests/golden/models/mixtral", {.length = 32})->at("what_is_estimated").get<std::string>(),
              testing::HasSubstr("may be several times lower"));
}

}  // namespace
}  // namespace rein::models

// Qwen3-MoE (Alibaba, arXiv 2505.09388): Qwen3 with experts.

#include "common/models/family_keys.h"

namespace rein::models {
namespace {

void Parse(ConfigReader& config, DecoderSpec* spec) {
  ParseLlamaKeys(config, spec);
  if (config.Flag("use_sliding_window", false)) {
    ParseWindows(config, spec, [](int64_t) { return true; });
  }
  config.Ignore({"sliding_window", "max_window_layers"});
  spec->qk_norm = QkNorm::kHead;
  spec->qkv_bias = spec->output_bias = config.Flag("attention_bias", false);
  ParseSparseLayers(config, spec);
  ExpertSpec& experts = spec->experts;
  experts.ffn_dim = config.Count("moe_intermediate_size", 768);
  experts.routing.experts = config.Count({"num_experts", "num_local_experts"}, 128);
  experts.routing.chosen = config.Count("num_experts_per_tok", 8);
  experts.routing.normalised = config.Flag("norm_topk_prob", false);
}

}  // namespace

extern constinit const ModelFamily kQwen3Moe{
    "Qwen3MoeForCausalLM", "qwen3_moe", &Parse, &FusableLlamaPlaces, nullptr, "model."};

}  // namespace rein::models

// OLMoE (Ai2, arXiv 2409.02060): Llama with experts, and norms over all of q and of k.

#include <nlohmann/json.hpp>

#include "common/models/family_keys.h"

namespace rein::models {
namespace {

void Parse(ConfigReader& config, DecoderSpec* spec) {
  ParseLlamaKeys(config, spec, {.default_epsilon = 1e-5});
  spec->qk_norm = QkNorm::kWhole;
  spec->qkv_bias = spec->output_bias = config.Flag("attention_bias", false);
  config.Only("clip_qkv", nullptr);
  ExpertSpec& experts = spec->experts;
  experts.ffn_dim = spec->ffn_dim;
  experts.routing.experts = config.Count({"num_experts", "num_local_experts"}, 64);
  experts.routing.chosen = config.Count("num_experts_per_tok", 8);
  experts.routing.normalised = config.Flag("norm_topk_prob", false);
  for (LayerSpec& layer : EachLayer(spec)) layer.sparse = true;
}

}  // namespace

extern constinit const ModelFamily kOlmoe{
    "OlmoeForCausalLM", "olmoe", &Parse, &FusableLlamaPlaces, nullptr, "model."};

}  // namespace rein::models

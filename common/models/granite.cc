// Granite 3 (IBM): Llama with multipliers of embeddings, scores, branches and logits.

#include "common/models/family_keys.h"

namespace rein::models {
namespace {

void Parse(ConfigReader& config, DecoderSpec* spec) {
  ParseLlamaKeys(config, spec);
  spec->qkv_bias = spec->output_bias = config.Flag("attention_bias", false);
  spec->mlp_bias = config.Flag("mlp_bias", false);
  spec->embedding_multiplier = config.Positive("embedding_multiplier", 1);
  spec->score_scale = config.Positive("attention_multiplier", 1);
  spec->block.residual_multiplier = config.Positive("residual_multiplier", 1);
  spec->logit_multiplier = 1 / config.Positive("logits_scaling", 1);
}

}  // namespace

extern constinit const ModelFamily kGranite{
    "GraniteForCausalLM", "granite", &Parse, &LlamaPlaces, nullptr, "model."};

}  // namespace rein::models

// SmolLM3 (Hugging Face): Llama whose every fourth layer does not turn queries and keys.

#include "common/models/family_keys.h"

namespace rein::models {
namespace {

void Parse(ConfigReader& config, DecoderSpec* spec) {
  ParseLlamaKeys(config, spec, {.tied_by_default = true, .default_theta = 2000000});
  ParseQwenWindows(config, spec);
  spec->qkv_bias = spec->output_bias = config.Flag("attention_bias", false);
  spec->mlp_bias = config.Flag("mlp_bias", false);
  const std::vector<double> turned = config.Numbers("no_rope_layers");  // 1: turned, whatever the name says
  const int64_t interval = config.Count("no_rope_layer_interval", 4);
  if (!turned.empty() && static_cast<int64_t>(turned.size()) != spec->num_layers) {
    return config.Error("no_rope_layers", "has " + std::to_string(turned.size()) + " layers, want " +
                                              std::to_string(spec->num_layers));
  }
  std::vector<LayerSpec>& layers = EachLayer(spec);
  for (size_t n = 0; n < layers.size(); ++n) {
    const bool turns = turned.empty() ? (static_cast<int64_t>(n) + 1) % interval != 0 : turned[n] != 0;
    layers[n].rope = turns ? 0 : -1;
  }
}

}  // namespace

extern constinit const ModelFamily kSmollm3{
    "SmolLM3ForCausalLM", "smollm3", &Parse, &LlamaPlaces, nullptr, "model."};

}  // namespace rein::models

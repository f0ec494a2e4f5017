// Mistral 7B and Mistral-Nemo (Mistral AI): Llama, the first with a sliding window on every layer.

#include "common/models/family_keys.h"

namespace rein::models {
namespace {

void Parse(ConfigReader& config, DecoderSpec* spec) {
  ParseLlamaKeys(config, spec);
  ParseWindows(config, spec, [](int64_t) { return true; });
}

}  // namespace

extern constinit const ModelFamily kMistral{
    "MistralForCausalLM", "mistral", &Parse, &LlamaPlaces, nullptr, "model."};

}  // namespace rein::models

// Gemma 3, text (Google, arXiv 2503.19786): Gemma 2 with norms on queries and keys instead of caps, five sliding
// layers for a full one, and rotary frequencies of their own for each kind.

#include <nlohmann/json.hpp>

#include "common/models/family_keys.h"
#include "common/models/gemma.h"

namespace rein::models {
namespace {

void Parse(ConfigReader& config, DecoderSpec* spec) {
  ParseGemmaKeys(config, spec);
  spec->qk_norm = QkNorm::kHead;
  config.Only("attn_logit_softcapping", nullptr);
  const int64_t pattern = config.Count({"sliding_window_pattern", "_sliding_window_pattern"}, 6);
  auto slides = [pattern](int64_t layer) { return (layer + 1) % pattern != 0; };
  ParseWindows(config, spec, slides);
  const std::vector<std::string> types = config.Texts("layer_types");
  std::vector<LayerSpec>& layers = EachLayer(spec);
  for (size_t n = 0; n < layers.size(); ++n) {
    const bool sliding = types.size() == layers.size() ? types[n] == "sliding_attention"
                                                       : slides(static_cast<int64_t>(n));
    layers[n].rope = sliding ? 1 : 0;
  }
  spec->ropes.resize(2);
  spec->ropes[1].theta = config.Positive("rope_local_base_freq", 10000);
  const nlohmann::json* rope = config.Find({"rope_parameters"});
  if (rope == nullptr || !rope->contains("full_attention")) return ParseRope(config, spec, 1e6);
  config.Ignore({"rope_theta", "rope_scaling"});
  ConfigReader kinds(*rope, "rope_parameters");
  for (int i : {0, 1}) {
    const char* name = i == 0 ? "full_attention" : "sliding_attention";
    const nlohmann::json* object = kinds.Find({name});
    if (object == nullptr) continue;
    double partial = 1;
    ConfigReader inner(*object, std::string("rope_parameters.") + name);
    spec->ropes[i] = ParseRopeObject(inner, i == 0 ? 1e6 : 1e4, spec->max_positions, spec->max_positions, &partial);
    kinds.Merge(inner);
  }
  config.Merge(kinds);
}

}  // namespace

extern constinit const ModelFamily kGemma3{
    "Gemma3ForCausalLM", "gemma3_text", &Parse, &GemmaPlaces, nullptr, "model."};

}  // namespace rein::models

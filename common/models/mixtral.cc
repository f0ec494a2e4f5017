// Mixtral (Mistral AI, arXiv 2401.04088): Mistral whose every layer is a mixture of experts.

#include <nlohmann/json.hpp>

#include "common/models/family_keys.h"

namespace rein::models {
namespace {

void Parse(ConfigReader& config, DecoderSpec* spec) {
  ParseLlamaKeys(config, spec, {.default_epsilon = 1e-5, .default_theta = 1e6});
  ParseWindows(config, spec, [](int64_t) { return true; });
  ExpertSpec& experts = spec->experts;
  experts.ffn_dim = spec->ffn_dim;
  experts.routing.experts = config.Count({"num_local_experts", "num_experts"}, 8);
  experts.routing.chosen = config.Count("num_experts_per_tok", 2);
  experts.routing.normalised = true;
  config.Only("router_jitter_noise", 0.0);
  for (LayerSpec& layer : EachLayer(spec)) layer.sparse = true;
}

std::vector<TensorPlace> Places(const DecoderSpec& spec, const weights::ParameterSpec& parameter) {
  static const auto& names = *new NameMap(
      Joined({{"layers.#.router.", "model.layers.#.block_sparse_moe.gate."},
              {"layers.#.experts.#.gate.", "model.layers.#.block_sparse_moe.experts.#.w1."},
              {"layers.#.experts.#.down.", "model.layers.#.block_sparse_moe.experts.#.w2."},
              {"layers.#.experts.#.up.", "model.layers.#.block_sparse_moe.experts.#.w3."}},
             LlamaNames()));
  return WithFusedExperts(spec, parameter.name, MappedName(names, parameter.name));
}

}  // namespace

extern constinit const ModelFamily kMixtral{
    "MixtralForCausalLM", "mixtral", &Parse, &Places, nullptr, "model."};

}  // namespace rein::models

// Qwen1.5-MoE and Qwen2-MoE (Alibaba, arXiv 2407.10671): Qwen2 with experts and, gated, one feed-forward layer that
// all tokens share.

#include "common/models/family_keys.h"

namespace rein::models {
namespace {

void Parse(ConfigReader& config, DecoderSpec* spec) {
  ParseLlamaKeys(config, spec);
  ParseQwenWindows(config, spec);
  spec->qkv_bias = config.Flag("qkv_bias", true);
  ParseSparseLayers(config, spec);
  ExpertSpec& experts = spec->experts;
  experts.ffn_dim = config.Count("moe_intermediate_size", 1408);
  experts.shared_ffn_dim = config.Count("shared_expert_intermediate_size", 5632);
  experts.shared_gate = true;
  experts.routing.experts = config.Count({"num_experts", "num_local_experts"}, 60);
  experts.routing.chosen = config.Count("num_experts_per_tok", 4);
  experts.routing.normalised = config.Flag("norm_topk_prob", false);
}

std::vector<TensorPlace> Places(const DecoderSpec& spec, const weights::ParameterSpec& parameter) {
  static const auto& names = *new NameMap(
      Joined({{"layers.#.shared_gate.", "model.layers.#.mlp.shared_expert_gate."},
              {"layers.#.shared.gate.", "model.layers.#.mlp.shared_expert.gate_proj."},
              {"layers.#.shared.up.", "model.layers.#.mlp.shared_expert.up_proj."},
              {"layers.#.shared.down.", "model.layers.#.mlp.shared_expert.down_proj."}},
             LlamaNames()));
  return WithFusedExperts(spec, parameter.name, MappedName(names, parameter.name));
}

}  // namespace

extern constinit const ModelFamily kQwen2Moe{
    "Qwen2MoeForCausalLM", "qwen2_moe", &Parse, &Places, nullptr, "model."};

}  // namespace rein::models

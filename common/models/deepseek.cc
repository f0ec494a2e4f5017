#include "common/models/deepseek.h"

#include <cmath>
#include <nlohmann/json.hpp>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/models/family_keys.h"

namespace rein::models {
namespace {

// Scores are stretched by the square of YaRN's factor at mscale_all_dim, whatever cos and sin carry.
double StretchedScale(ConfigReader& config, double scale) {
  const nlohmann::json* rope = config.Find({"rope_parameters", "rope_scaling"});
  if (rope == nullptr || !rope->is_object()) return scale;
  ConfigReader inner(*rope, "rope_scaling");  // ParseRope has reported what is wrong in it
  const nlohmann::json* kind = inner.Find({"rope_type", "type"});
  const double all_dim = inner.Number("mscale_all_dim", 0), factor = inner.Number("factor", 1);
  if (kind == nullptr || *kind == "default" || all_dim == 0 || factor <= 1) return scale;
  const double m = 0.1 * all_dim * std::log(factor) + 1;
  return scale * m * m;
}

}  // namespace

void ParseDeepseekExperts(ConfigReader& config, DecoderSpec* spec) {
  ExpertSpec& experts = spec->experts;
  experts.ffn_dim = config.Count("moe_intermediate_size");
  experts.routing.experts = config.Count({"n_routed_experts", "num_local_experts", "num_experts"});
  experts.routing.chosen = config.Count("num_experts_per_tok");
  experts.shared_ffn_dim = experts.ffn_dim * config.Count("n_shared_experts", 1);
  const double dense = config.Number("first_k_dense_replace", 0);
  config.Only("moe_layer_freq", 1);
  std::vector<LayerSpec>& layers = EachLayer(spec);
  for (size_t n = 0; n < layers.size(); ++n) layers[n].sparse = static_cast<double>(n) >= dense;
  config.Ignore({"aux_loss_alpha", "seq_aux", "ep_size", "num_nextn_predict_layers", "num_mtp_layers"});
}

void ParseDeepseekKeys(ConfigReader& config, DecoderSpec* spec) {
  ParseShape(config, {}, spec);
  config.Ignore({"num_key_value_heads", "head_dim", "qk_head_dim"});  // follow from the rest
  spec->ffn_dim = config.Count("intermediate_size");
  spec->gate.activation = ParseActivation(config, {"hidden_act"}, "silu");
  config.Only("attention_bias", false);
  config.Only("mlp_bias", false);
  LatentSpec& latent = spec->latent;
  latent.query_dim = config.Has({"q_lora_rank"}) ? config.Count("q_lora_rank") : 0;
  latent.latent_dim = config.Count("kv_lora_rank", 512);
  latent.plain_dim = config.Count("qk_nope_head_dim", 128);
  latent.rotary_dim = config.Count("qk_rope_head_dim", 64);
  latent.value_dim = config.Count("v_head_dim", 128);
  spec->head_dim = latent.rotary_dim;  // the part that turns
  spec->rope_interleaved = true;
  ParseRope(config, spec);
  spec->score_scale = StretchedScale(config, spec->attention_scale());
  ParseDeepseekExperts(config, spec);
  spec->experts.routing.multiplier = config.Positive("routed_scaling_factor", 1);
}

void ParseSigmoidRouting(ConfigReader& config, double default_multiplier, DecoderSpec* spec) {
  spec->mtp_offered = static_cast<int64_t>(config.Number("num_nextn_predict_layers", 0));
  spec->experts.correction = true;
  nn::RoutingRule& routing = spec->experts.routing;
  routing.score = nn::RoutingRule::Score::kSigmoid;
  routing.normalised = config.Flag("norm_topk_prob", true);
  routing.sum_epsilon = 1e-20;
  routing.multiplier = config.Positive("routed_scaling_factor", default_multiplier);
  routing.groups = config.Count("n_group", 1);
  routing.chosen_groups = config.Count("topk_group", 1);
  routing.group_score = nn::RoutingRule::GroupScore::kTwoHighest;
}

namespace {

// Of layer num_layers + k stands beside its block (README_WEIGHTS.md of DeepSeek-V3): enorm, hnorm, eh_proj, shared_head.norm.
std::string MtpName(const DecoderSpec& spec, absl::string_view parameter) {
  static const auto& names = *new NameMap({{"mtp.#.embedding_norm.", "enorm."},
                                           {"mtp.#.hidden_norm.", "hnorm."},
                                           {"mtp.#.projection.", "eh_proj."},
                                           {"mtp.#.norm.", "shared_head.norm."}});
  int64_t depth = 0;
  for (size_t i = 4; i < parameter.size() && parameter[i] != '.'; ++i) depth = 10 * depth + (parameter[i] - '0');
  return absl::StrCat("model.layers.", spec.num_layers + depth, ".", MappedName(names, parameter));
}

}  // namespace

std::vector<std::pair<std::string, std::string>> DeepseekMtpCopies(const DecoderSpec& spec) {
  std::vector<std::pair<std::string, std::string>> copies;
  for (int64_t n = spec.num_layers; n < spec.num_layers + spec.mtp_layers; ++n) {
    copies.emplace_back(absl::StrCat("model.layers.", n, ".embed_tokens.weight"), "model.embed_tokens.weight");
    copies.emplace_back(absl::StrCat("model.layers.", n, ".shared_head.head.weight"),
                        spec.tied_head ? "model.embed_tokens.weight" : "lm_head.weight");
  }
  return copies;
}

std::vector<TensorPlace> DeepseekPlaces(const DecoderSpec& spec, const weights::ParameterSpec& parameter) {
  static const auto& names = *new NameMap(
      Joined({{"layers.#.attention.q_down.", "model.layers.#.self_attn.q_a_proj."},
              {"layers.#.attention.q_down_norm.", "model.layers.#.self_attn.q_a_layernorm."},
              {"layers.#.attention.kv_down.", "model.layers.#.self_attn.kv_a_proj_with_mqa."},
              {"layers.#.attention.latent_norm.", "model.layers.#.self_attn.kv_a_layernorm."},
              {"layers.#.attention.kv_up.", "model.layers.#.self_attn.kv_b_proj."},
              {"layers.#.router.correction", "model.layers.#.mlp.gate.e_score_correction_bias"},
              {"layers.#.shared.gate.", "model.layers.#.mlp.shared_experts.gate_proj."},
              {"layers.#.shared.up.", "model.layers.#.mlp.shared_experts.up_proj."},
              {"layers.#.shared.down.", "model.layers.#.mlp.shared_experts.down_proj."}},
             LlamaNames()));
  if (absl::StartsWith(parameter.name, "mtp.")) return {WholeTensor(MtpName(spec, parameter.name))};
  std::string name = MappedName(names, parameter.name);
  if (spec.latent.query_dim > 0 && IsPart(parameter.name, "attention.q.")) {
    name = absl::StrCat("model.layers.", LayerOf(parameter.name), ".self_attn.q_b_proj.weight");
  }
  return WithFusedExperts(spec, parameter.name, name);
}

bool IsDeepseekMtp(const DecoderSpec& spec, absl::string_view tensor) {
  const int64_t layer = LayerOf(tensor);
  return absl::StartsWith(tensor, "model.layers.") && layer >= spec.num_layers + spec.mtp_layers;
}

}  // namespace rein::models

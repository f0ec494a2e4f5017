// The table of families, and the config keys that they share.

#include <nlohmann/json.hpp>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/models/family.h"
#include "common/status/status_macros.h"

namespace rein::models {

extern const ModelFamily kLlama, kQwen2, kQwen3;

namespace {

using nlohmann::json;

constexpr const ModelFamily* kFamilies[] = {&kLlama, &kQwen2, &kQwen3};

constexpr int64_t kMaxDimension = int64_t{1} << 24;

absl::Status Bad(absl::string_view key, absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat("config.json: ", key, " ", what));
}

absl::StatusOr<int64_t> Count(const json& config, const char* key, int64_t fallback = 0) {
  auto it = config.find(key);
  if (it == config.end() || it->is_null()) {
    if (fallback > 0) return fallback;
    return Bad(key, "is missing");
  }
  if (!it->is_number_integer()) return Bad(key, absl::StrCat("is ", it->dump(), ", want a count"));
  const int64_t value = it->get<int64_t>();
  if (value < 1 || value > kMaxDimension) {
    return Bad(key, absl::StrCat("is ", value, ", want 1 to ", kMaxDimension));
  }
  return value;
}

absl::StatusOr<double> Positive(const json& config, const char* key, double fallback) {
  auto it = config.find(key);
  if (it == config.end() || it->is_null()) return fallback;
  if (!it->is_number() || !(it->get<double>() > 0)) {
    return Bad(key, absl::StrCat("is ", it->dump(), ", want a number above 0"));
  }
  return it->get<double>();
}

absl::Status ParseRope(const json& config, DecoderSpec* spec) {
  json rope = config.value("rope_parameters", json());  // the newer place
  if (!rope.is_object()) rope = config.value("rope_scaling", json());
  REIN_ASSIGN_OR_RETURN(double top, Positive(config, "rope_theta", 10000));
  spec->rope_theta = top;
  if (!rope.is_object()) return absl::OkStatus();
  REIN_ASSIGN_OR_RETURN(spec->rope_theta, Positive(rope, "rope_theta", top));
  const json& kind_value = rope.contains("rope_type") ? rope["rope_type"] : rope.value("type", json());
  const std::string kind = kind_value.is_string() ? kind_value.get<std::string>() : "default";
  if (kind == "default") return absl::OkStatus();
  RopeScaling& scaling = spec->rope_scaling;
  REIN_ASSIGN_OR_RETURN(scaling.factor, Positive(rope, "factor", 1));
  if (kind == "linear") {
    scaling.kind = RopeScaling::Kind::kLinear;
    return absl::OkStatus();
  }
  if (kind != "llama3") {
    return Bad("rope_scaling", absl::StrCat("has type '", kind, "', want default, linear or llama3"));
  }
  scaling.kind = RopeScaling::Kind::kLlama3;
  REIN_ASSIGN_OR_RETURN(scaling.low_freq_factor, Positive(rope, "low_freq_factor", 1));
  REIN_ASSIGN_OR_RETURN(scaling.high_freq_factor, Positive(rope, "high_freq_factor", 4));
  REIN_ASSIGN_OR_RETURN(scaling.original_max_positions,
                        Count(rope, "original_max_position_embeddings", spec->max_positions));
  if (!(scaling.high_freq_factor > scaling.low_freq_factor)) {
    return Bad("rope_scaling", "wants high_freq_factor above low_freq_factor");
  }
  return absl::OkStatus();
}

void ParseEos(const json& config, DecoderSpec* spec) {
  auto it = config.find("eos_token_id");
  if (it == config.end()) return;
  for (const json& id : it->is_array() ? *it : json::array({*it})) {
    if (id.is_number_unsigned()) spec->eos_token_ids.push_back(id.get<uint32_t>());
  }
}

absl::Status CheckShape(const DecoderSpec& spec) {
  if (spec.num_heads % spec.num_kv_heads != 0) {
    return Bad("num_key_value_heads", absl::StrCat("is ", spec.num_kv_heads, ", which does not divide ",
                                                   spec.num_heads, " attention heads"));
  }
  if (spec.head_dim % 2 != 0 || spec.head_dim > 512) {
    return Bad("head_dim", absl::StrCat("is ", spec.head_dim, ", want an even number up to 512"));
  }
  if (spec.num_layers > 1024) return Bad("num_hidden_layers", "is above 1024");
  return absl::OkStatus();
}

}  // namespace

const ModelFamily* FindFamily(absl::string_view architecture) {
  for (const ModelFamily* family : kFamilies) {
    if (architecture == family->architecture) return family;
  }
  return nullptr;
}

std::vector<const ModelFamily*> AllFamilies() {
  return std::vector<const ModelFamily*>(std::begin(kFamilies), std::end(kFamilies));
}

absl::StatusOr<DecoderSpec> ParseConfig(const ModelFamily& family, const json& config) {
  DecoderSpec spec;
  spec.architecture = family.architecture;
  REIN_ASSIGN_OR_RETURN(spec.vocab_size, Count(config, "vocab_size"));
  REIN_ASSIGN_OR_RETURN(spec.model_dim, Count(config, "hidden_size"));
  REIN_ASSIGN_OR_RETURN(spec.ffn_dim, Count(config, "intermediate_size"));
  REIN_ASSIGN_OR_RETURN(spec.num_layers, Count(config, "num_hidden_layers"));
  REIN_ASSIGN_OR_RETURN(spec.num_heads, Count(config, "num_attention_heads"));
  REIN_ASSIGN_OR_RETURN(spec.num_kv_heads, Count(config, "num_key_value_heads", spec.num_heads));
  REIN_ASSIGN_OR_RETURN(
      spec.head_dim, Count(config, "head_dim", std::max<int64_t>(1, spec.model_dim / spec.num_heads)));
  REIN_ASSIGN_OR_RETURN(spec.max_positions, Count(config, "max_position_embeddings", 2048));
  REIN_ASSIGN_OR_RETURN(spec.norm_epsilon, Positive(config, "rms_norm_eps", 1e-6));
  spec.tied_head = config.value("tie_word_embeddings", false);
  const json act = config.value("hidden_act", json("silu"));
  if (act != "silu") return Bad("hidden_act", absl::StrCat("is ", act.dump(), ", want \"silu\""));
  REIN_RETURN_IF_ERROR(ParseRope(config, &spec));
  ParseEos(config, &spec);
  REIN_RETURN_IF_ERROR(family.parse(config, &spec));
  REIN_RETURN_IF_ERROR(CheckShape(spec));
  return spec;
}

std::string LlamaCheckpointName(absl::string_view parameter) {
  if (parameter == "embedding.weight") return "model.embed_tokens.weight";
  if (parameter == "norm.weight") return "model.norm.weight";
  if (parameter == "head.weight") return "lm_head.weight";
  static constexpr std::pair<const char*, const char*> kParts[] = {
      {"attention_norm.", "input_layernorm."},  {"mlp_norm.", "post_attention_layernorm."},
      {"attention.q.", "self_attn.q_proj."},    {"attention.k.", "self_attn.k_proj."},
      {"attention.v.", "self_attn.v_proj."},    {"attention.output.", "self_attn.o_proj."},
      {"attention.q_norm.", "self_attn.q_norm."}, {"attention.k_norm.", "self_attn.k_norm."},
      {"mlp.gate.", "mlp.gate_proj."},          {"mlp.up.", "mlp.up_proj."},
      {"mlp.down.", "mlp.down_proj."}};
  // layers.<n>.<part><weight or bias>
  std::vector<std::string> pieces = absl::StrSplit(parameter, absl::MaxSplits('.', 2));
  for (const auto& [ours, theirs] : kParts) {
    if (pieces.size() == 3 && pieces[2].rfind(ours, 0) == 0) {
      return absl::StrCat("model.layers.", pieces[1], ".", theirs,
                          pieces[2].substr(std::string(ours).size()));
    }
  }
  return std::string(parameter);
}

}  // namespace rein::models

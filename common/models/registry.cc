// The table of families.

#include <iterator>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/models/family.h"
#include "common/status/status_macros.h"

namespace rein::models {

// One line for each family.
#define REIN_MODEL_FAMILIES(FAMILY) \
  FAMILY(kBaichuan) \
  FAMILY(kBloom) \
  FAMILY(kChatglm) \
  FAMILY(kDeepseekV2) \
  FAMILY(kDeepseekV3) \
  FAMILY(kFalcon) \
  FAMILY(kGemma2) \
  FAMILY(kGemma3) \
  FAMILY(kGlm) \
  FAMILY(kGlm4) \
  FAMILY(kGlm4Moe) \
  FAMILY(kGpt2) \
  FAMILY(kGptBigcode) \
  FAMILY(kGptOss) \
  FAMILY(kGranite) \
  FAMILY(kLlama) \
  FAMILY(kMistral) \
  FAMILY(kMixtral) \
  FAMILY(kOlmo2) \
  FAMILY(kOlmoe) \
  FAMILY(kOpt) \
  FAMILY(kPhi3) \
  FAMILY(kQwen) \
  FAMILY(kQwen2) \
  FAMILY(kQwen2Moe) \
  FAMILY(kQwen3) \
  FAMILY(kQwen3Moe) \
  FAMILY(kQwen3Next) \
  FAMILY(kSmollm3) \
  FAMILY(kStarcoder2)

#define REIN_DECLARE(family) extern const ModelFamily family;
REIN_MODEL_FAMILIES(REIN_DECLARE)
#undef REIN_DECLARE

namespace {

using nlohmann::json;

#define REIN_ADDRESS(family) &family,
constexpr const ModelFamily* kFamilies[] = {REIN_MODEL_FAMILIES(REIN_ADDRESS)};
#undef REIN_ADDRESS

// Other names of the same models.
constexpr std::pair<absl::string_view, absl::string_view> kAliases[] = {
    {"BaiChuanForCausalLM", "BaichuanForCausalLM"},         // Baichuan-7B
    {"ChatGLMForConditionalGeneration", "ChatGLMModel"},
    {"RWForCausalLM", "FalconForCausalLM"},
};

void ParseEos(const json& config, DecoderSpec* spec) {
  auto it = config.find("eos_token_id");
  if (it == config.end()) return;
  for (const json& id : it->is_array() ? *it : json::array({*it})) {
    if (id.is_number_unsigned()) spec->eos_token_ids.push_back(id.get<uint32_t>());
  }
}

void CheckShape(ConfigReader& config, const DecoderSpec& spec) {
  if (spec.num_heads % spec.num_kv_heads != 0) {
    config.Error("num_key_value_heads", absl::StrCat("is ", spec.num_kv_heads, ", which does not divide ",
                                                     spec.num_heads, " attention heads"));
  }
  if (spec.head_dim % 2 != 0 || spec.head_dim > 512) {
    config.Error("head_dim", absl::StrCat("is ", spec.head_dim, ", want an even number up to 512"));
  }
  if (spec.rotary_dim % 2 != 0 || spec.rotary_dim > spec.head_dim) {
    config.Error("partial_rotary_factor", absl::StrCat("turns ", spec.rotary_dim, " of ", spec.head_dim,
                                                       " dims, want an even number of them"));
  }
  const nn::RoutingRule& routing = spec.experts.routing;
  if (routing.experts == 0) return;
  if (routing.chosen > routing.experts) {
    config.Error("num_experts_per_tok",
                 absl::StrCat("is ", routing.chosen, ", want at most ", routing.experts, ", the experts"));
  }
  if (routing.experts % routing.groups != 0 || routing.chosen_groups > routing.groups ||
      routing.chosen > routing.experts / routing.groups * routing.chosen_groups) {
    config.Error("n_group", absl::StrCat("is ", routing.groups, " with topk_group ", routing.chosen_groups,
                                         ", which do not fit ", routing.experts, " experts of which ",
                                         routing.chosen, " are chosen"));
  }
}

}  // namespace

const ModelFamily* FindFamily(absl::string_view architecture) {
  for (const auto& [alias, name] : kAliases) {
    if (architecture == alias) architecture = name;
  }
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
  ConfigReader reader(config);
  family.parse(reader, &spec);
  reader.Only("rope_interleaved", false);  // families that turn neighbours do so by themselves
  reader.Only("use_mrope", false);         // positions of images
  // As in `transformers` the auxiliary loss is added where the logits are asked for.
  const bool balanced = reader.Flag("output_router_logits", false);
  if (balanced && (spec.experts.routing.experts == 0 || spec.experts.correction)) {
    reader.Error("output_router_logits", "is true, but this family has no auxiliary loss; want false");
  } else if (balanced) {
    spec.experts.balance = reader.Positive("router_aux_loss_coef", 0.001);
  }
  ParseEos(config, &spec);
  CheckShape(reader, spec);
  REIN_RETURN_IF_ERROR(reader.status());
  return spec;
}

}  // namespace rein::models

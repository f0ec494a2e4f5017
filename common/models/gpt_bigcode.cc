// StarCoder (BigCode, arXiv 2305.06161): GPT-2 whose heads share one key and value.

#include <nlohmann/json.hpp>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/models/family_keys.h"
#include "common/models/gpt.h"

namespace rein::models {
namespace {

void Parse(ConfigReader& config, DecoderSpec* spec) {
  ParseGptKeys(config, "gelu_pytorch_tanh", spec);
  if (config.Flag("multi_query", true)) spec->num_kv_heads = 1;
  config.Ignore({"attention_softmax_in_fp32", "scale_attention_softmax_in_fp32", "inference_runner",
                 "max_batch_size", "max_sequence_length", "num_key_value_heads", "pad_key_length", "pre_allocate_kv_cache",
                 "summary_activation", "summary_proj_to_labels", "summary_type", "summary_use_proj",
                 "validate_runner_input"});
}

std::vector<TensorPlace> Places(const DecoderSpec& spec, const weights::ParameterSpec& parameter) {
  const std::string tensor = absl::StrCat("transformer.h.", LayerOf(parameter.name), ".attn.c_attn.");
  const bool shared = spec.num_kv_heads == 1 && spec.num_heads > 1;
  auto place = shared ? StackedQkvPlace(spec, parameter.name, tensor) : PerGroupQkvPlace(spec, parameter.name, tensor);
  if (place) return {*place};
  return {WholeTensor(GptName(parameter.name))};
}

// Buffers of the causal mask.
bool IsMask(const DecoderSpec&, absl::string_view tensor) {
  return absl::EndsWith(tensor, ".attn.bias") || absl::EndsWith(tensor, ".attn.masked_bias");
}

}  // namespace

extern constinit const ModelFamily kGptBigcode{
    "GPTBigCodeForCausalLM", "gpt_bigcode", &Parse, &Places, &IsMask, "transformer."};

}  // namespace rein::models

// gpt-oss (OpenAI, arXiv 2508.10925): experts with biases and a clamped gate, a sink for each head, and a sliding window
// on every other layer.

#include "absl/strings/str_cat.h"
#include "common/models/family_keys.h"

namespace rein::models {
namespace {

void Parse(ConfigReader& config, DecoderSpec* spec) {
  ParseLlamaKeys(config, spec, {.default_epsilon = 1e-5, .default_theta = 150000});
  ParseWindows(config, spec, [](int64_t layer) { return layer % 2 == 0; });
  spec->qkv_bias = spec->output_bias = config.Flag("attention_bias", true);
  spec->sinks = true;
  spec->gate.limit = config.Positive("swiglu_limit", 7);
  spec->gate.slope = config.Positive("swiglu_alpha", 1.702);
  ExpertSpec& experts = spec->experts;
  experts.ffn_dim = spec->ffn_dim;
  experts.bias = experts.router_bias = true;
  experts.routing.score = nn::RoutingRule::Score::kSoftmaxOfChosen;
  experts.routing.experts = config.Count({"num_local_experts", "num_experts"}, 128);
  experts.routing.chosen = config.Count({"num_experts_per_tok", "experts_per_token"}, 4);
  config.Ignore({"initial_context_length"});
  for (LayerSpec& layer : EachLayer(spec)) layer.sparse = true;
}

// All experts of a layer in one tensor: [E, D, 2I] with gate and up in turns, [E, I, D], and their biases.
std::vector<TensorPlace> Places(const DecoderSpec& spec, const weights::ParameterSpec& parameter) {
  const std::string& name = parameter.name;
  const int64_t expert = ExpertOf(name), count = spec.experts.routing.experts, width = spec.experts.ffn_dim,
                d = spec.model_dim;
  const std::string at = absl::StrCat("model.layers.", LayerOf(name));
  if (expert >= 0) {
    const std::string tensor = at + ".mlp.experts.";
    const int64_t up = IsPart(name, "up.") ? 1 : 0;
    if (Kind(name) == "bias" && IsPart(name, "down.")) {
      return {{tensor + "down_proj_bias", {count, d}, expert * d, {d}, {1}}};
    }
    if (Kind(name) == "bias") {
      return {{tensor + "gate_up_proj_bias", {count, 2 * width}, expert * 2 * width + up, {width}, {2}}};
    }
    if (IsPart(name, "down.")) {
      return {{tensor + "down_proj", {count, width, d}, expert * width * d, {d, width}, {1, d}}};
    }
    return {{tensor + "gate_up_proj", {count, d, 2 * width}, expert * d * 2 * width + up, {width, d},
             {2, 2 * width}}};
  }
  if (IsPart(name, "router.")) return {WholeTensor(absl::StrCat(at, ".mlp.router.", Kind(name)))};
  if (Kind(name) == "sinks") return {WholeTensor(at + ".self_attn.sinks")};
  return LlamaPlaces(spec, parameter);
}

}  // namespace

extern constinit const ModelFamily kGptOss{
    "GptOssForCausalLM", "gpt_oss", &Parse, &Places, nullptr, "model."};

}  // namespace rein::models

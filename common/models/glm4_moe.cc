// GLM-4.5 and 4.6 (Zhipu AI, arXiv 2508.06471): grouped-query attention with DeepSeek-V3's routing.

#include "common/models/family_keys.h"
#include "common/models/deepseek.h"

namespace rein::models {
namespace {

void Parse(ConfigReader& config, DecoderSpec* spec) {
  ParseLlamaKeys(config, spec, {.default_epsilon = 1e-5, .default_partial = 0.5});
  spec->qkv_bias = config.Flag("attention_bias", false);
  if (config.Flag("use_qk_norm", false)) spec->qk_norm = QkNorm::kHead;
  ParseDeepseekExperts(config, spec);
  ParseSigmoidRouting(config, 1, spec);
}

}  // namespace

extern constinit const ModelFamily kGlm4Moe{
    "Glm4MoeForCausalLM", "glm4_moe", &Parse, &DeepseekPlaces, &IsDeepseekMtp, "model.", &DeepseekMtpCopies};

}  // namespace rein::models

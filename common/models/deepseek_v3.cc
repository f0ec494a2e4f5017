// DeepSeek-V3, R1 (arXiv 2412.19437) and Moonlight (Moonshot AI): DeepSeek-V2 with sigmoid routing, whose choice a bias
// corrects.

#include <nlohmann/json.hpp>

#include "common/models/family_keys.h"
#include "common/models/deepseek.h"

namespace rein::models {
namespace {

void Parse(ConfigReader& config, DecoderSpec* spec) {
  ParseDeepseekKeys(config, spec);
  spec->rope_interleaved = config.Flag("rope_interleave", true);
  config.Only("scoring_func", "sigmoid");
  config.Only("topk_method", "noaux_tc");
  ParseSigmoidRouting(config, 2.5, spec);
}

}  // namespace

extern constinit const ModelFamily kDeepseekV3{
    "DeepseekV3ForCausalLM", "deepseek_v3", &Parse, &DeepseekPlaces, &IsDeepseekMtp, "model.", &DeepseekMtpCopies};

}  // namespace rein::models

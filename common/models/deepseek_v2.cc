// DeepSeek-V2 and V2-Lite (arXiv 2405.04434): latent attention, and experts beside shared ones.

#include <nlohmann/json.hpp>

#include "common/models/family_keys.h"
#include "common/models/deepseek.h"

namespace rein::models {
namespace {

void Parse(ConfigReader& config, DecoderSpec* spec) {
  ParseDeepseekKeys(config, spec);
  nn::RoutingRule& routing = spec->experts.routing;
  config.Only("scoring_func", "softmax");
  config.Only("norm_topk_prob", false);  // published code and `transformers` differ in what it does
  const std::string method = config.Text("topk_method", "greedy");
  if (method != "greedy" && method != "group_limited_greedy") {
    config.Error("topk_method", "is '" + method + "', want greedy or group_limited_greedy");
  }
  const bool grouped = method == "group_limited_greedy";
  const int64_t groups = config.Count("n_group", 1), chosen_groups = config.Count("topk_group", 1);
  routing.groups = grouped ? groups : 1;
  routing.chosen_groups = grouped ? chosen_groups : 1;
}

}  // namespace

extern constinit const ModelFamily kDeepseekV2{
    "DeepseekV2ForCausalLM", "deepseek_v2", &Parse, &DeepseekPlaces, &IsDeepseekMtp, "model."};

}  // namespace rein::models

#include "common/models/upcycle.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/grad_mode.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/checkpoint/durable_file.h"
#include "common/checkpoint/model_source.h"
#include "common/models/model_folder.h"
#include "common/status/status_macros.h"
#include "common/weights/digest.h"

namespace rein::models {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using nlohmann::ordered_json;

// config.json of the mixture.
absl::StatusOr<json> SparseConfig(const ModelDescription& dense, const UpcycleChoice& choice) {
  json config = json::parse(dense.config_json);
  const std::string& architecture = dense.spec.architecture;
  config["num_experts_per_tok"] = choice.chosen;
  bool windows = false;
  for (int64_t n = 0; n < dense.spec.num_layers; ++n) windows = windows || dense.spec.layer(n).window > 0;
  if (!windows) config.erase("layer_types");  // which says that every layer is alike
  if (architecture == "LlamaForCausalLM" || architecture == "MistralForCausalLM") {
    if (dense.spec.qkv_bias || dense.spec.mlp_bias) {
      return absl::InvalidArgumentError("a Llama with biases has no mixture of experts among the families: Mixtral has none");
    }
    for (const char* key : {"attention_bias", "mlp_bias", "pretraining_tp"}) config.erase(key);
    config["architectures"] = {"MixtralForCausalLM"};
    config["model_type"] = "mixtral";
    config["num_local_experts"] = choice.experts;
    return config;
  }
  if (architecture == "Qwen3ForCausalLM") {
    config["architectures"] = {"Qwen3MoeForCausalLM"};
    config["model_type"] = "qwen3_moe";
    config["num_experts"] = choice.experts;
    config["moe_intermediate_size"] = dense.spec.ffn_dim;
    config["norm_topk_prob"] = true;
    config["decoder_sparse_step"] = 1;
    config["mlp_only_layers"] = json::array();
    return config;
  }
  return absl::InvalidArgumentError(
      absl::StrCat(architecture, " has no mixture of experts to become; want LlamaForCausalLM, MistralForCausalLM or Qwen3ForCausalLM"));
}

// The dense parameter that an expert's begins as: layers.3.experts.5.up.weight, layers.3.mlp.up.weight.
std::string DenseName(const std::string& name) {
  const size_t begin = name.find(".experts.");
  if (begin == std::string::npos) return name;
  const size_t end = name.find('.', begin + std::string(".experts.").size());
  return absl::StrCat(name.substr(0, begin), ".mlp", name.substr(end));
}

}  // namespace

absl::StatusOr<ordered_json> Upcycle(const std::string& folder, const std::string& to, const UpcycleChoice& choice) {
  if (choice.experts < 2 || choice.chosen < 1 || choice.chosen > choice.experts) {
    return absl::InvalidArgumentError(absl::StrCat("--experts is ", choice.experts, " and --chosen ", choice.chosen,
                                                   ", want at least 2 experts and 1 to all of them chosen"));
  }
  if (fs::exists(to)) return absl::AlreadyExistsError(to + " is there already");
  REIN_ASSIGN_OR_RETURN(ModelDescription dense, DescribeModel(folder));
  if (!dense.spec.lora.empty() || dense.spec.scalar_head) {
    return absl::InvalidArgumentError(folder + ": want a whole causal model (merge an adapter first)");
  }
  REIN_ASSIGN_OR_RETURN(json config, SparseConfig(dense, choice));
  REIN_ASSIGN_OR_RETURN(weights::Registry from, weights::Registry::Create(DecoderParameters(dense.spec)));
  at::NoGradGuard no_grad;
  const bool bf16 = config.value("torch_dtype", config.value("dtype", "")) == "bfloat16";
  at::Tensor source = at::zeros({from.arena_elements()}, bf16 ? at::kBFloat16 : at::kFloat);
  REIN_RETURN_IF_ERROR(LoadWeights(folder, dense, from, source));

  const std::string temporary = to + ".part";
  fs::remove_all(temporary);
  fs::create_directories(temporary);
  REIN_RETURN_IF_ERROR(checkpoint::WriteDurably(temporary + "/config.json", config.dump(2) + "\n"));
  REIN_ASSIGN_OR_RETURN(ModelDescription sparse, DescribeModel(temporary));
  REIN_ASSIGN_OR_RETURN(weights::Registry registry, weights::Registry::Create(DecoderParameters(sparse.spec)));
  at::Tensor arena = at::zeros({registry.arena_elements()}, source.options());
  for (const weights::Parameter& p : registry.parameters()) {
    at::Tensor target = arena.narrow(0, p.offset, p.elements);
    const weights::Parameter* begins = from.Find(DenseName(p.spec.name));
    if (begins != nullptr && begins->spec.shape == p.spec.shape) {
      target.copy_(source.narrow(0, begins->offset, begins->elements));
    } else if (absl::EndsWith(p.spec.name, "router.weight")) {
      const uint64_t key[] = {choice.seed, weights::Digest(p.spec.name.data(), p.spec.name.size())};
      at::Generator draws = at::detail::createCPUGenerator(weights::Digest(key, sizeof(key)));
      target.copy_(at::empty({p.elements}, at::kFloat).normal_(0, 0.02, draws));
    } else {
      return absl::InternalError(absl::StrCat("upcycling has no beginning for ", p.spec.name));
    }
  }
  REIN_ASSIGN_OR_RETURN(checkpoint::ModelSource text, checkpoint::FindModel(folder));
  REIN_RETURN_IF_ERROR(SaveModelFolder(temporary, sparse, registry, arena, text.text));
  std::error_code error;
  fs::rename(temporary, to, error);
  if (error) return absl::ErrnoToStatus(error.value(), absl::StrCat("cannot write ", to));
  return ordered_json{{"folder", to},
                      {"architecture", sparse.spec.architecture},
                      {"experts", choice.experts},
                      {"chosen", choice.chosen},
                      {"parameters", {{"dense", from.parameter_count()}, {"all", registry.parameter_count()}}}};
}

}  // namespace rein::models

#include "common/models/model_folder.h"

#include <filesystem>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "common/checkpoint/model_source.h"
#include "common/json/parse_json.h"
#include "common/models/lora.h"
#include "common/status/status_macros.h"

namespace rein::models {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr const char* kRemoteCode =
    " (the folder brings its own code by auto_map, which is never run: a model computes what this program "
    "defines)";

absl::StatusOr<json> ReadJson(const std::string& path) {
  REIN_ASSIGN_OR_RETURN(json parsed, rein::json::ReadJsonFile(path));
  if (!parsed.is_object()) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": is not a JSON object"));
  }
  return parsed;
}

// Qwen3 of Qwen3ForCausalLM, GPT2 of GPT2LMHeadModel.
std::string BodyOf(const ModelFamily& family) {
  absl::string_view name = family.architecture;
  if (!absl::ConsumeSuffix(&name, "ForCausalLM")) absl::ConsumeSuffix(&name, "LMHeadModel");
  return std::string(name);
}

absl::Status CheckQuantization(const std::string& file, const json& config) {
  auto it = config.find("quantization_config");
  if (it == config.end() || it->is_null()) return absl::OkStatus();
  const std::string method = it->is_object() ? it->value("quant_method", "unnamed") : it->dump();
  if (method == "fp8" || method == "mxfp4") return absl::OkStatus();  // see LoadWeights
  return absl::InvalidArgumentError(
      absl::StrCat(file, ": quantization_config has quant_method '", method,
                   "', which is not supported; want weights in BF16, F16 or F32, fp8 with "
                   "weight_scale_inv, or mxfp4"));
}

// Of a folder with whole weights.
absl::StatusOr<ModelDescription> DescribeBase(const std::string& path) {
  const std::string file = fs::is_directory(path) ? path + "/config.json" : path;
  ModelDescription model;
  model.base = path;
  REIN_ASSIGN_OR_RETURN(json config, ReadJson(file));
  model.config_json = config.dump(2) + "\n";
  const json architectures = config.value("architectures", json::array());
  const std::string architecture = architectures.is_array() && architectures.size() == 1 &&
                                           architectures[0].is_string()
                                       ? architectures[0].get<std::string>()
                                       : "";
  constexpr absl::string_view kClassifier = "ForSequenceClassification";
  const bool scalar = absl::EndsWith(architecture, kClassifier);
  model.family = FindFamily(architecture);
  for (const ModelFamily* family : AllFamilies()) {
    if (scalar && absl::StrCat(BodyOf(*family), kClassifier) == architecture) model.family = family;
  }
  if (model.family == nullptr) {
    std::vector<std::string> known;
    for (const ModelFamily* family : AllFamilies()) known.push_back(family->architecture);
    return absl::InvalidArgumentError(
        absl::StrCat(file, ": architectures is ", architectures.dump(),
                     ", which is not supported", config.contains("auto_map") ? kRemoteCode : "",
                     "; supported: ", absl::StrJoin(known, ", ")));
  }
  REIN_RETURN_IF_ERROR(CheckQuantization(file, config));
  absl::StatusOr<DecoderSpec> spec = ParseConfig(*model.family, config);
  if (!spec.ok()) {
    return absl::Status(spec.status().code(), absl::StrCat(file, ": ", spec.status().message()));
  }
  model.spec = *std::move(spec);
  model.spec.scalar_head = scalar;
  if (!scalar) return model;
  const json labels = config.value("id2label", json::object());
  const size_t count = config.value("num_labels", labels.is_object() ? labels.size() : size_t{0});
  if (count == 1) return model;
  return absl::InvalidArgumentError(
      absl::StrCat(file, ": has ", count, " labels, a reward model has num_labels 1"));
}

}  // namespace

absl::StatusOr<ModelDescription> DescribeModel(const std::string& path) {
  REIN_ASSIGN_OR_RETURN(checkpoint::ModelSource source, checkpoint::FindModel(path));
  REIN_ASSIGN_OR_RETURN(ModelDescription model, DescribeBase(source.weights));
  if (source.adapter.empty()) return model;
  return WithAdapter(model, source.adapter);
}

absl::StatusOr<ModelDescription> WithScalarHead(const ModelDescription& model) {
  if (model.spec.scalar_head) return model;
  ModelDescription scalar = model;
  scalar.spec.scalar_head = true;
  json config = json::parse(model.config_json);
  config["architectures"] = {BodyOf(*model.family) + "ForSequenceClassification"};
  config["num_labels"] = 1;
  config["id2label"] = {{"0", "LABEL_0"}};
  config["label2id"] = {{"LABEL_0", 0}};
  scalar.config_json = config.dump(2) + "\n";
  return scalar;
}

}  // namespace rein::models

#include "common/models/model_folder.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/grad_mode.h>

#include <cmath>
#include <filesystem>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/checkpoint/durable_file.h"
#include "common/checkpoint/safetensors.h"
#include "common/files/read_file.h"
#include "common/json/parse_json.h"
#include "common/status/status_macros.h"
#include "common/weights/digest.h"

namespace rein::models {
namespace {

namespace fs = std::filesystem;
using checkpoint::SafetensorsFile;
using checkpoint::TensorView;
using nlohmann::json;

constexpr size_t kMaxListed = 20;

absl::StatusOr<json> ReadJson(const std::string& path) {
  REIN_ASSIGN_OR_RETURN(json parsed, rein::json::ReadJsonFile(path));
  if (!parsed.is_object()) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": is not a JSON object"));
  }
  return parsed;
}

// The safetensors files of a folder, one or many.
absl::StatusOr<std::vector<std::unique_ptr<SafetensorsFile>>> OpenFolder(const std::string& folder) {
  std::set<std::string> names;
  const std::string index_path = folder + "/model.safetensors.index.json";
  if (fs::exists(index_path)) {
    REIN_ASSIGN_OR_RETURN(json index, ReadJson(index_path));
    const json& map = index["weight_map"];
    if (!map.is_object()) {
      return absl::InvalidArgumentError(absl::StrCat(index_path, ": weight_map is not an object"));
    }
    for (const auto& [tensor, file] : map.items()) {
      const std::string name = file.is_string() ? file.get<std::string>() : "";
      if (name.empty() || absl::StrContains(name, "/")) {
        return absl::InvalidArgumentError(absl::StrCat(index_path, ": the file of ", tensor, " is ",
                                                       file.dump(), ", want a name in this folder"));
      }
      names.insert(name);
    }
  } else {
    names.insert("model.safetensors");
  }
  std::vector<std::unique_ptr<SafetensorsFile>> files;
  for (const std::string& name : names) {
    REIN_ASSIGN_OR_RETURN(files.emplace_back(), SafetensorsFile::Open(folder + "/" + name));
  }
  return files;
}

at::ScalarType TorchType(const std::string& dtype) {
  if (dtype == "F32") return at::kFloat;
  if (dtype == "BF16") return at::kBFloat16;
  if (dtype == "F16") return at::kHalf;
  return at::ScalarType::Undefined;
}

at::Tensor AsTensor(const TensorView& view) {
  return at::from_blob(const_cast<char*>(view.data), view.shape, TorchType(view.dtype));
}

std::string Listed(const std::vector<std::string>& problems) {
  std::vector<std::string> first(problems.begin(),
                                 problems.begin() + std::min(problems.size(), kMaxListed));
  std::string text = absl::StrJoin(first, "; ");
  if (problems.size() > kMaxListed) absl::StrAppend(&text, "; and ", problems.size() - kMaxListed, " more");
  return text;
}

// A checkpoint may carry the head although it is tied; it must then be the embedding again.
bool IsTiedCopy(const std::map<std::string, const TensorView*>& tensors, const ModelFamily& family,
                const TensorView& head) {
  auto it = tensors.find(family.checkpoint_name("embedding.weight"));
  return it != tensors.end() && it->second->dtype == head.dtype &&
         it->second->shape == head.shape &&
         std::memcmp(it->second->data, head.data, head.size_bytes) == 0;
}

}  // namespace

absl::StatusOr<ModelDescription> DescribeModel(const std::string& path) {
  const std::string file = fs::is_directory(path) ? path + "/config.json" : path;
  ModelDescription model;
  REIN_ASSIGN_OR_RETURN(json config, ReadJson(file));
  model.config_json = config.dump(2) + "\n";
  const json architectures = config.value("architectures", json::array());
  const std::string architecture = architectures.is_array() && architectures.size() == 1 &&
                                           architectures[0].is_string()
                                       ? architectures[0].get<std::string>()
                                       : "";
  constexpr absl::string_view kClassifier = "ForSequenceClassification", kCausal = "ForCausalLM";
  const bool scalar = absl::EndsWith(architecture, kClassifier);
  const std::string body =
      architecture.substr(0, architecture.size() - (scalar ? kClassifier.size() : 0));
  model.family = FindFamily(scalar ? absl::StrCat(body, kCausal) : architecture);
  if (model.family == nullptr) {
    std::vector<std::string> known;
    for (const ModelFamily* family : AllFamilies()) known.push_back(family->architecture);
    return absl::InvalidArgumentError(
        absl::StrCat(file, ": architectures is ", architectures.dump(),
                     ", which is not supported; supported: ", absl::StrJoin(known, ", ")));
  }
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

absl::StatusOr<ModelDescription> WithScalarHead(const ModelDescription& model) {
  if (model.spec.scalar_head) return model;
  ModelDescription scalar = model;
  scalar.spec.scalar_head = true;
  json config = json::parse(model.config_json);
  std::string architecture = model.family->architecture;
  architecture.resize(architecture.size() - std::string("ForCausalLM").size());
  config["architectures"] = {architecture + "ForSequenceClassification"};
  config["num_labels"] = 1;
  config["id2label"] = {{"0", "LABEL_0"}};
  config["label2id"] = {{"LABEL_0", 0}};
  scalar.config_json = config.dump(2) + "\n";
  return scalar;
}

absl::Status LoadWeights(const std::string& folder, const ModelDescription& model,
                         const weights::Registry& registry, const at::Tensor& arena) {
  REIN_ASSIGN_OR_RETURN(auto files, OpenFolder(folder));
  std::map<std::string, const TensorView*> tensors;
  std::vector<std::string> problems;
  for (const auto& file : files) {
    for (const auto& [name, view] : file->tensors()) {
      if (!tensors.emplace(name, &view).second) problems.push_back(name + " is in two files");
    }
  }
  std::set<std::string> used;
  std::vector<std::pair<const weights::Parameter*, const TensorView*>> copies;
  for (const weights::Parameter& parameter : registry.parameters()) {
    const std::string name = model.family->checkpoint_name(parameter.spec.name);
    auto it = tensors.find(name);
    if (it == tensors.end() && parameter.spec.name == "score.weight") {
      arena.narrow(0, parameter.offset, parameter.elements).zero_();
      continue;
    }
    if (it == tensors.end()) {
      problems.push_back(name + " is missing");
      continue;
    }
    used.insert(name);
    const TensorView& view = *it->second;
    if (view.shape != parameter.spec.shape || TorchType(view.dtype) == at::ScalarType::Undefined) {
      problems.push_back(absl::StrCat(name, " is ", view.dtype, "[", absl::StrJoin(view.shape, ", "),
                                      "], want F32, BF16 or F16 [",
                                      absl::StrJoin(parameter.spec.shape, ", "), "]"));
      continue;
    }
    copies.emplace_back(&parameter, &view);
  }
  for (const auto& [name, view] : tensors) {
    if (used.count(name) > 0 || absl::EndsWith(name, "rotary_emb.inv_freq")) continue;
    const bool causal_head = name == model.family->checkpoint_name("head.weight");
    if (model.spec.scalar_head && causal_head) continue;
    const bool head = model.spec.tied_head && causal_head;
    if (head && IsTiedCopy(tensors, *model.family, *view)) continue;
    problems.push_back(head ? name + " differs from the embedding although config.json ties them"
                            : name + " is unknown to " + model.family->architecture);
  }
  if (!problems.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(folder, ": ", problems.size(),
                                                   " tensor(s) do not fit config.json: ",
                                                   Listed(problems)));
  }
  for (const auto& [parameter, view] : copies) {
    arena.narrow(0, parameter->offset, parameter->elements)
        .view(parameter->local_shape)
        .copy_(AsTensor(*view));
  }
  return absl::OkStatus();
}

void InitializeWeights(const weights::Registry& registry, uint64_t seed, const at::Tensor& arena) {
  constexpr double kDeviation = 0.02;
  at::NoGradGuard no_grad;
  arena.zero_();
  for (const weights::Parameter& parameter : registry.parameters()) {
    at::Tensor target = arena.narrow(0, parameter.offset, parameter.elements);
    if (absl::EndsWith(parameter.spec.name, "norm.weight")) {
      target.fill_(1);
    } else if (parameter.spec.shape.size() > 1) {
      const uint64_t key[] = {
          seed, weights::Digest(parameter.spec.name.data(), parameter.spec.name.size())};
      at::Generator generator = at::detail::createCPUGenerator(weights::Digest(key, sizeof(key)));
      target.copy_(at::empty({parameter.elements}, at::kFloat).normal_(0, kDeviation, generator));
    }
  }
}

absl::Status SaveModelFolder(const std::string& folder, const ModelDescription& model,
                             const weights::Registry& registry, const at::Tensor& arena,
                             const std::string& source_folder) {
  std::error_code error;
  fs::create_directories(folder, error);
  if (error) return absl::InternalError(absl::StrCat("cannot make ", folder, ": ", error.message()));
  at::Tensor host = arena.to(at::kCPU).contiguous();
  const bool bf16 = host.scalar_type() == at::kBFloat16;
  std::vector<checkpoint::NamedTensor> tensors;
  for (const weights::Parameter& p : registry.parameters()) {
    checkpoint::NamedTensor tensor{model.family->checkpoint_name(p.spec.name), {}};
    tensor.view.dtype = bf16 ? "BF16" : "F32";
    tensor.view.shape = p.spec.shape;
    tensor.view.data = static_cast<const char*>(host.const_data_ptr()) + p.offset * host.element_size();
    tensor.view.size_bytes = static_cast<size_t>(p.elements) * host.element_size();
    tensors.push_back(std::move(tensor));
  }
  REIN_RETURN_IF_ERROR(checkpoint::WriteSafetensors(folder + "/model.safetensors", tensors,
                                                    {{"format", "pt"}}));
  json config = json::parse(model.config_json);
  config.erase("dtype");
  config["torch_dtype"] = bf16 ? "bfloat16" : "float32";
  REIN_RETURN_IF_ERROR(
      checkpoint::WriteDurably(folder + "/config.json", config.dump(2) + "\n"));
  if (source_folder.empty()) return absl::OkStatus();
  for (const char* name : {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
                           "generation_config.json", "chat_template.jinja", "vocab.json",
                           "merges.txt", "tokenizer.model", "added_tokens.json"}) {
    const fs::path from = fs::path(source_folder) / name;
    if (!fs::exists(from)) continue;
    REIN_ASSIGN_OR_RETURN(std::string content, files::ReadFile(from.string(), 256 << 20));
    REIN_RETURN_IF_ERROR(checkpoint::WriteDurably((fs::path(folder) / name).string(), content));
  }
  return absl::OkStatus();
}

}  // namespace rein::models

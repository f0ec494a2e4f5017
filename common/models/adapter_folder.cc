// Adapter folders of PEFT; see lora.h.

#include "common/models/lora.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "common/checkpoint/durable_file.h"
#include "common/checkpoint/safetensors.h"
#include "common/json/parse_json.h"
#include "common/models/lora_names.h"
#include "common/models/weight_files.h"
#include "common/status/status_macros.h"
#include "common/weights/digest.h"

namespace rein::models {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using weights::Parameter;
using weights::ParameterSpec;

constexpr const char* kPrefix = "base_model.model.";  // of every tensor of an adapter's file

// A module of the file: the matrices that it holds.
using Modules = std::map<std::string, std::vector<const Matrix*>>;

Modules ModulesOf(const std::vector<Matrix>& matrices) {
  Modules modules;
  for (const Matrix& m : matrices) {
    if (WhyNone(m.name, m.place) == nullptr) modules[m.module].push_back(&m);
  }
  return modules;
}

// Which rows of its module's matrix a part has, int64.
at::Tensor RowsOfModule(const Matrix& m) {
  if (m.place.shape.empty()) return at::arange(m.spec.shape[0], at::kLong);
  // Transposed tensors are [columns, rows]: their parts step by 1 from row to row.
  const bool transposed = m.place.strides.size() == 2 && m.place.strides[0] == 1 && m.place.strides[1] > 1;
  at::Tensor rows = at::arange(m.place.shape[transposed ? 1 : 0], at::kLong);
  rows = (transposed ? rows.unsqueeze(0) : rows.unsqueeze(1)).expand(m.place.shape).contiguous();
  return rows.as_strided(m.place.sizes, m.place.strides, m.place.offset)
      .reshape({m.spec.shape[0], m.spec.shape[1]})
      .select(1, 0)
      .contiguous();
}

int64_t ModuleRows(const Matrix& m) {
  if (m.place.shape.empty()) return m.spec.shape[0];
  const bool transposed = m.place.strides.size() == 2 && m.place.strides[0] == 1 && m.place.strides[1] > 1;
  return m.place.shape[transposed ? 1 : 0];
}

std::string TensorName(const std::string& module, const char* part) {
  return absl::StrCat(kPrefix, module, ".lora_", part, ".weight");
}

using File = std::unique_ptr<checkpoint::SafetensorsFile>;

absl::StatusOr<File> OpenAdapter(const std::string& folder) {
  const std::string path = folder + "/adapter_model.safetensors";
  std::error_code error;
  if (!fs::exists(path, error) && fs::exists(folder + "/adapter_model.bin", error)) {
    return absl::InvalidArgumentError(absl::StrCat(
        folder, ": has adapter_model.bin only, a pickle, which is never opened because it can run code; save the adapter again "
                "with save_pretrained(..., safe_serialization=True)"));
  }
  return checkpoint::SafetensorsFile::Open(path);
}

// Settings of adapter_config.json that change what is computed and stay at these values here.
absl::Status CheckAdapterConfig(const std::string& file, const json& config) {
  if (config.value("peft_type", json()) != "LORA") {
    return absl::InvalidArgumentError(absl::StrCat(file, ": peft_type is ", config.value("peft_type", json()).dump(), ", want \"LORA\""));
  }
  auto refuse = [&](const char* key, const json& found) {
    return absl::InvalidArgumentError(absl::StrCat(file, ": ", key, " is ", found.dump(), ", which is not supported"));
  };
  if (config.value("bias", json("none")) != "none") return refuse("bias", config["bias"]);
  for (const char* key : {"use_dora", "lora_bias", "use_qalora", "layer_replication", "target_parameters", "trainable_token_indices",
                          "alora_invocation_tokens", "arrow_config", "kasa_config", "use_bdlora", "monteclora_config", "velora_config"}) {
    const json found = config.value(key, json());
    if (!found.is_null() && found != false && !(found.is_structured() && found.empty())) return refuse(key, found);
  }
  return absl::OkStatus();
}

// rank_pattern and alpha_pattern: the value of a key that is the module's name or its end, else `otherwise`.
double OfPattern(const json& config, const char* key, const std::string& module, double otherwise) {
  const json patterns = config.value(key, json::object());
  if (!patterns.is_object()) return otherwise;
  for (const auto& [pattern, value] : patterns.items()) {
    if (value.is_number() && MatchesName(absl::StripPrefix(pattern, "^"), module)) return value.get<double>();
  }
  return otherwise;
}

// Every module that the adapter says it saves whole is there, and none is the embedding of a tied head.
absl::Status CheckSaved(const std::string& file, const json& config, const ModelDescription& model) {
  std::vector<ParameterSpec> saved;
  for (ParameterSpec& spec : DecoderParameters(model.spec)) {
    if (model.spec.saved.count(spec.name) == 0) continue;
    if (const std::string why = WhyNotSaved(model, spec); !why.empty()) {
      return absl::InvalidArgumentError(absl::StrCat(file, ": saves ", spec.name, " whole, but ", why));
    }
    saved.push_back(std::move(spec));
  }
  const json modules = config.value("modules_to_save", json());
  for (const json& module : modules.is_array() ? modules : json::array()) {
    const std::string pattern = module.is_string() ? module.get<std::string>() : module.dump();
    if (pattern == "score" && model.spec.scalar_head) continue;
    bool any = false;
    for (const ParameterSpec& spec : saved) {
      const std::vector<std::string> names = NamesOf(model, spec);
      any = any || std::any_of(names.begin(), names.end(), [&](const std::string& name) {
              return absl::EndsWith(name, pattern);  // as PEFT has it: not only behind a dot
            });
    }
    if (!any) {
      return absl::InvalidArgumentError(absl::StrCat(file, ": modules_to_save has ", module.dump(),
                                                     ", of which adapter_model.safetensors has no tensor that the base knows"));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<ModelDescription> WithAdapter(const ModelDescription& base, const std::string& folder) {
  const std::string file = folder + "/adapter_config.json";
  REIN_ASSIGN_OR_RETURN(json config, rein::json::ReadJsonFile(file));
  if (!config.is_object()) return absl::InvalidArgumentError(file + ": is not a JSON object");
  ModelDescription model = base;
  if (config.value("task_type", json()) == "SEQ_CLS") {
    REIN_ASSIGN_OR_RETURN(model, WithScalarHead(base));
  }
  REIN_RETURN_IF_ERROR(CheckAdapterConfig(file, config));
  const json alpha = config.value("lora_alpha", json()), r = config.value("r", json());
  if (!alpha.is_number() || !r.is_number()) {
    return absl::InvalidArgumentError(absl::StrCat(file, ": lora_alpha is ", alpha.dump(), " and r is ", r.dump(), ", want numbers"));
  }
  const bool stabilised = config.value("use_rslora", json()) == true;
  REIN_ASSIGN_OR_RETURN(File tensors, OpenAdapter(folder));
  const std::vector<Matrix> matrices = MatricesOf(model);
  const Modules modules = ModulesOf(matrices);
  std::map<std::string, std::string> whole;  // tensors of the base, by the file's name and ours
  for (const ParameterSpec& spec : DecoderParameters(model.spec)) {
    const TensorPlace place = model.family->places(model.spec, spec)[0];
    if (place.shape.empty()) whole[absl::StrCat(kPrefix, place.tensor)] = spec.name;
  }
  std::vector<std::string> unknown;
  for (const auto& [name, view] : tensors->tensors()) {
    absl::string_view module = name;
    if (absl::ConsumeSuffix(&module, ".lora_B.weight") || name == absl::StrCat(kPrefix, "score.weight")) continue;
    if (auto saved = whole.find(name); saved != whole.end()) {
      model.spec.saved.insert(saved->second);
      continue;
    }
    auto found = modules.end();
    if (absl::ConsumePrefix(&module, kPrefix) && absl::ConsumeSuffix(&module, ".lora_A.weight") && view.shape.size() == 2) {
      found = modules.find(std::string(module));
    }
    if (found == modules.end()) {
      unknown.push_back(name);
      continue;
    }
    const auto rank = static_cast<double>(view.shape[0]);
    const double own = OfPattern(config, "alpha_pattern", found->first, alpha.get<double>());
    for (const Matrix* m : found->second) {
      model.spec.lora[m->name] = {view.shape[0], own / (stabilised ? std::sqrt(rank) : rank)};
    }
  }
  if (!unknown.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(folder, ": ", unknown.size(), " tensor(s) update nothing of ",
                                                   base.spec.architecture, ": ", absl::StrJoin(unknown, ", ")));
  }
  if (model.spec.lora.empty()) return absl::InvalidArgumentError(folder + "/adapter_model.safetensors: has no lora_A");
  REIN_RETURN_IF_ERROR(CheckSaved(file, config, model));
  return model;
}

absl::Status LoadAdapter(const std::string& folder, const ModelDescription& model, const weights::Registry& registry,
                         const ArenaParts& arena) {
  REIN_ASSIGN_OR_RETURN(File file, OpenAdapter(folder));
  at::NoGradGuard no_grad;
  std::vector<std::string> problems;
  auto read = [&](const std::string& name, const std::vector<int64_t>& wanted) -> at::Tensor {
    const checkpoint::TensorView* view = file->Find(name);
    at::Tensor tensor = view == nullptr || view->shape != wanted ? at::Tensor() : FileTensor(*view);
    if (!tensor.defined()) {
      problems.push_back(absl::StrCat(
          name, view == nullptr ? " is missing" : absl::StrCat(" is ", view->dtype, "[", absl::StrJoin(view->shape, ", "), "]"),
          ", want F32, BF16 or F16 [", absl::StrJoin(wanted, ", "), "]"));
    }
    return tensor;
  };
  const std::vector<Matrix> matrices = MatricesOf(model);
  for (const Matrix& m : matrices) {
    auto lora = model.spec.lora.find(m.name);
    if (lora == model.spec.lora.end()) continue;
    const int64_t rank = lora->second.rank;
    at::Tensor down = read(TensorName(m.module, "A"), {rank, m.spec.shape[1]});
    at::Tensor up = read(TensorName(m.module, "B"), {ModuleRows(m), rank});
    if (!down.defined() || !up.defined()) continue;
    const Parameter &a = *registry.Find(m.name + kLoraDown), &b = *registry.Find(m.name + kLoraUp);
    arena.Of(registry, a).view(a.spec.shape).copy_(down);
    arena.Of(registry, b).view(b.spec.shape).copy_(up.index_select(0, RowsOfModule(m)));
  }
  for (const std::string& parameter : model.spec.saved) {
    const Parameter& p = *registry.Find(parameter);
    at::Tensor from = read(absl::StrCat(kPrefix, model.family->places(model.spec, p.spec)[0].tensor), p.spec.shape);
    if (from.defined()) arena.Of(registry, p).view(p.spec.shape).copy_(from);
  }
  if (const Parameter* score = registry.Find("score.weight")) {
    const std::string name = absl::StrCat(kPrefix, "score.weight");
    at::Tensor from = file->Find(name) == nullptr ? at::Tensor() : read(name, score->spec.shape);
    if (from.defined()) arena.Of(registry, *score).view(score->spec.shape).copy_(from);
  }
  if (problems.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(folder, ": ", absl::StrJoin(problems, "; ")));
}

absl::Status SaveAdapterFolder(const std::string& folder, const ModelDescription& model,
                               const weights::Registry& registry, const ArenaParts& arena,
                               const std::string& text_folder) {
  std::error_code error;
  fs::create_directories(folder, error);
  if (error) return absl::InternalError(absl::StrCat("cannot make ", folder, ": ", error.message()));
  at::NoGradGuard no_grad;
  auto host = [&](const std::string& name) {
    const Parameter& p = *registry.Find(name);
    return arena.Of(registry, p).view(p.spec.shape).to(at::kCPU).contiguous();
  };
  const std::vector<Matrix> matrices = MatricesOf(model);
  std::map<std::string, at::Tensor> tensors;
  json modules = json::array(), ranks = json::object(), alphas = json::object();
  std::optional<LoraShape> first;  // of a module; those that differ are listed
  for (const auto& [module, parts] : ModulesOf(matrices)) {
    std::vector<at::Tensor> downs;
    LoraShape shape;
    for (const Matrix* m : parts) {
      auto lora = model.spec.lora.find(m->name);
      if (lora == model.spec.lora.end()) continue;
      downs.push_back(host(m->name + kLoraDown));
      shape = {shape.rank + lora->second.rank, lora->second.scale};
    }
    if (downs.empty()) continue;
    at::Tensor up = at::zeros({ModuleRows(*parts[0]), shape.rank}, downs[0].options());
    int64_t column = 0;
    for (const Matrix* m : parts) {
      auto lora = model.spec.lora.find(m->name);
      if (lora == model.spec.lora.end()) continue;
      up.narrow(1, column, lora->second.rank).index_copy_(0, RowsOfModule(*m), host(m->name + kLoraUp));
      column += lora->second.rank;
    }
    tensors[TensorName(module, "A")] = at::cat(downs, 0).contiguous();
    tensors[TensorName(module, "B")] = up;
    modules.push_back(module);
    if (!first) first = shape;
    if (shape.rank != first->rank) ranks[module] = shape.rank;
    if (shape.rank != first->rank || shape.scale != first->scale) {
      alphas[module] = shape.scale * static_cast<double>(shape.rank);
    }
  }
  if (!first) return absl::InternalError(folder + ": the model has no updates to save");
  if (registry.Find("score.weight") != nullptr) tensors[absl::StrCat(kPrefix, "score.weight")] = host("score.weight");
  std::set<std::string> saved;  // modules
  for (const std::string& parameter : model.spec.saved) {
    const std::string tensor = model.family->places(model.spec, registry.Find(parameter)->spec)[0].tensor;
    tensors[absl::StrCat(kPrefix, tensor)] = host(parameter);
    saved.insert(OwnerOf(tensor));
  }
  if (model.spec.scalar_head) saved.insert("score");
  std::vector<checkpoint::NamedTensor> named;
  for (const auto& [name, data] : tensors) {
    named.push_back({name, {data.scalar_type() == at::kBFloat16 ? "BF16" : "F32", data.sizes().vec(),
                            static_cast<const char*>(data.const_data_ptr()),
                            static_cast<size_t>(data.numel() * data.element_size())}});
  }
  REIN_RETURN_IF_ERROR(checkpoint::WriteSafetensors(folder + "/adapter_model.safetensors", named, {{"format", "pt"}}));
  // The scale as alpha / r, whatever it was made of: PEFT computes it again.
  const double alpha = first->scale * static_cast<double>(first->rank);
  const bool transposed = model.spec.architecture == "GPT2LMHeadModel";  // Conv1D
  json config = {{"peft_type", "LORA"}, {"task_type", model.spec.scalar_head ? "SEQ_CLS" : "CAUSAL_LM"},
                 {"base_model_name_or_path", fs::absolute(model.base).lexically_normal().string()},
                 {"r", first->rank}, {"lora_alpha", alpha}, {"lora_dropout", 0.0}, {"use_rslora", false}, {"use_dora", false},
                 {"bias", "none"}, {"fan_in_fan_out", transposed}, {"inference_mode", true}, {"init_lora_weights", true},
                 {"target_modules", modules}, {"rank_pattern", ranks}, {"alpha_pattern", alphas},
                 {"modules_to_save", saved.empty() ? json() : json(saved)}};
  REIN_RETURN_IF_ERROR(checkpoint::WriteDurably(folder + "/adapter_config.json", config.dump(2) + "\n"));
  return text_folder.empty() ? absl::OkStatus() : CopyTokenizer(text_folder, folder);
}

}  // namespace rein::models

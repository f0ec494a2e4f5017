#include "common/models/lora.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/grad_mode.h>

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
#include "common/config/nearest_name.h"
#include "common/json/parse_json.h"
#include "common/models/weight_files.h"
#include "common/status/status_macros.h"
#include "common/weights/digest.h"

namespace rein::models {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using weights::Parameter;
using weights::ParameterSpec;

constexpr absl::string_view kWeight = ".weight";
constexpr const char* kAllLinear = "all-linear";
constexpr const char* kPrefix = "base_model.model.";  // of every tensor of an adapter's file

// Whether `pattern` is `text`, with '*' for any characters.
bool Glob(absl::string_view pattern, absl::string_view text) {
  size_t p = 0, t = 0, star = absl::string_view::npos, resume = 0;
  while (t < text.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      resume = t;
    } else if (p < pattern.size() && pattern[p] == text[t]) {
      ++p;
      ++t;
    } else if (star != absl::string_view::npos) {
      p = star + 1;
      t = ++resume;
    } else {
      return false;
    }
  }
  while (p < pattern.size() && pattern[p] == '*') ++p;
  return p == pattern.size();
}

// A matrix by our name and by the file's, both without ".weight".
struct Matrix {
  std::string name, module;
  ParameterSpec spec;
  TensorPlace place;
};

std::string ModuleOf(const std::string& tensor) { return std::string(absl::StripSuffix(tensor, kWeight)); }

// Null for a matrix that can have an update, else why it has none.
const char* WhyNone(const std::string& name, const TensorPlace& place) {
  if (name == "embedding" || name == "position_embedding") return "is an embedding";
  if (name == "head" || name == "score") return "is the head, whose kernel has no update";
  if (absl::EndsWith(name, ".router")) return "is a router";
  if (absl::EndsWith(name, ".conv")) return "is a convolution";
  if (place.shape.size() > 2) return "is one of several experts in one tensor, for which PEFT has no module";
  return nullptr;
}

// Every matrix of the base.
std::vector<Matrix> MatricesOf(const ModelDescription& model) {
  DecoderSpec base = model.spec;
  base.lora.clear();
  std::vector<Matrix> matrices;
  for (ParameterSpec& spec : DecoderParameters(base)) {
    if (spec.shape.size() != 2 || !absl::EndsWith(spec.name, kWeight)) continue;
    TensorPlace place = model.family->places(base, spec)[0];
    Matrix matrix{ModuleOf(spec.name), ModuleOf(place.tensor), std::move(spec), std::move(place)};
    matrices.push_back(std::move(matrix));
  }
  return matrices;
}

std::string Nearest(const std::string& pattern, const std::vector<std::string>& names) {
  std::set<std::string> ends;  // "q_proj" and "self_attn.q_proj", of all layers
  for (const std::string& name : names) {
    size_t begin = 0;
    do {
      const std::string end = name.substr(begin);
      if (end.find_first_of("0123456789") == std::string::npos) ends.insert(end);
      begin = name.find('.', begin) + 1;
    } while (begin > 0);
  }
  const std::string nearest = config::NearestName(pattern, {ends.begin(), ends.end()});
  return nearest.empty() ? "" : absl::StrCat("; did you mean ", nearest, "?");
}

// Adds an update for every matrix that a target names.
absl::Status Target(const LoraChoice& choice, ModelDescription* model) {
  if (choice.rank < 1) return absl::InvalidArgumentError(absl::StrCat("model.lora.rank is ", choice.rank, ", want at least 1"));
  const auto rank = static_cast<double>(choice.rank);
  const LoraShape shape{choice.rank, choice.alpha / (choice.rank_stabilised ? std::sqrt(rank) : rank)};
  const std::vector<Matrix> matrices = MatricesOf(*model);
  std::vector<std::string> names;
  for (const Matrix& m : matrices) {
    if (WhyNone(m.name, m.place) != nullptr) continue;
    names.push_back(m.name);
    names.push_back(m.module);
  }
  const std::vector<std::string> targets = choice.targets.empty() ? std::vector<std::string>{kAllLinear} : choice.targets;
  for (const std::string& target : targets) {
    bool any = false;
    std::string refused;
    for (const Matrix& m : matrices) {
      if (target != kAllLinear && !MatchesName(target, m.name) && !MatchesName(target, m.module)) continue;
      if (const char* why = WhyNone(m.name, m.place)) {
        refused = absl::StrCat(m.name, " (", m.module, ") ", why);
        continue;
      }
      any = true;
      model->spec.lora[m.name] = shape;
    }
    if (any) continue;
    return absl::InvalidArgumentError(absl::StrCat("model.lora.target: '", target, "' names ",
                                                   refused.empty() ? "no matrix of this model" : "only what has no update: " + refused,
                                                   Nearest(target, names)));
  }
  return absl::OkStatus();
}

absl::Status Freeze(const std::vector<std::string>& patterns, ModelDescription* model) {
  std::vector<std::string> names;
  std::vector<ParameterSpec> specs = DecoderParameters(model->spec);
  auto names_of = [&](const ParameterSpec& spec) {
    std::vector<std::string> of{spec.name};
    if (!IsLora(spec.name)) of.push_back(model->family->places(model->spec, spec)[0].tensor);
    for (size_t i = 0, count = of.size(); i < count; ++i) {
      for (absl::string_view kind : {".weight", ".bias"}) {
        if (absl::EndsWith(of[i], kind)) of.emplace_back(absl::StripSuffix(of[i], kind));
      }
    }
    return of;
  };
  for (const std::string& pattern : patterns) {
    bool any = false;
    for (const ParameterSpec& spec : specs) {
      for (const std::string& name : names_of(spec)) {
        if (!MatchesName(pattern, name)) continue;
        any = true;
        model->spec.frozen.insert(spec.name);
      }
    }
    if (any) continue;
    for (const ParameterSpec& spec : specs) {
      for (std::string& name : names_of(spec)) names.push_back(std::move(name));
    }
    return absl::InvalidArgumentError(
        absl::StrCat("model.freeze: '", pattern, "' names no parameter of this model", Nearest(pattern, names)));
  }
  for (const ParameterSpec& spec : DecoderParameters(model->spec)) {
    if (spec.trained) return absl::OkStatus();
  }
  return absl::InvalidArgumentError("model.freeze: leaves nothing to train");
}

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
absl::Status CheckAdapterConfig(const std::string& file, const json& config, bool scalar_head) {
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
  const json saved = config.value("modules_to_save", json());
  const bool score = scalar_head && saved == json::array({"score"});
  if (!saved.is_null() && !saved.empty() && !score) return refuse("modules_to_save", saved);
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

}  // namespace

bool MatchesName(absl::string_view pattern, absl::string_view name) {
  if (Glob(pattern, name)) return true;
  for (size_t dot = name.find('.'); dot != absl::string_view::npos; dot = name.find('.', dot + 1)) {
    if (Glob(pattern, name.substr(dot + 1))) return true;
  }
  return false;
}

namespace {

absl::Status HoldMtp(const std::string& path, const TrainedChoice& choice, bool scalar_head, ModelDescription* model) {
  DecoderSpec& spec = model->spec;
  if (spec.mtp_offered == 0) {
    return absl::InvalidArgumentError(absl::StrCat("model.mtp: ", path, " (", spec.architecture,
                                                   ") has no layers of multi-token prediction (num_nextn_predict_layers) that are known"));
  }
  if (choice.lora || !spec.lora.empty()) {
    return absl::InvalidArgumentError("model.mtp: cannot stand beside model.lora: PEFT knows no such layers");
  }
  if (scalar_head) return absl::InvalidArgumentError("model.mtp: a model with a scalar head predicts no tokens");
  spec.mtp_layers = spec.mtp_offered;
  if (!spec.layers.empty()) spec.layers.resize(static_cast<size_t>(spec.num_layers + spec.mtp_layers), spec.layers.back());
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<ModelDescription> DescribeTrained(const std::string& path, const TrainedChoice& choice, bool scalar_head) {
  REIN_ASSIGN_OR_RETURN(ModelDescription model, DescribeModel(path));
  if (scalar_head) {
    REIN_ASSIGN_OR_RETURN(model, WithScalarHead(model));
  }
  if (choice.mtp) REIN_RETURN_IF_ERROR(HoldMtp(path, choice, scalar_head, &model));
  if (choice.lora) {
    if (!model.spec.lora.empty()) {
      return absl::InvalidArgumentError(absl::StrCat(
          "model.lora: ", path, " is an adapter folder, which says itself what it updates: leave model.lora out to train it "
          "further, or merge it first"));
    }
    REIN_RETURN_IF_ERROR(Target(*choice.lora, &model));
  }
  if (!choice.freeze.empty()) REIN_RETURN_IF_ERROR(Freeze(choice.freeze, &model));
  if (choice.base != weights::Quantisation::kNone && model.spec.lora.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "model.base: ", path, " is trained whole, and quantised weights have no gradient: want model.lora, or an adapter folder"));
  }
  model.spec.quantisation = choice.base;
  return model;
}

absl::StatusOr<ModelDescription> WithAdapter(const ModelDescription& base, const std::string& folder) {
  const std::string file = folder + "/adapter_config.json";
  REIN_ASSIGN_OR_RETURN(json config, rein::json::ReadJsonFile(file));
  if (!config.is_object()) return absl::InvalidArgumentError(file + ": is not a JSON object");
  ModelDescription model = base;
  if (config.value("task_type", json()) == "SEQ_CLS") {
    REIN_ASSIGN_OR_RETURN(model, WithScalarHead(base));
  }
  REIN_RETURN_IF_ERROR(CheckAdapterConfig(file, config, model.spec.scalar_head));
  const json alpha = config.value("lora_alpha", json()), r = config.value("r", json());
  if (!alpha.is_number() || !r.is_number()) {
    return absl::InvalidArgumentError(absl::StrCat(file, ": lora_alpha is ", alpha.dump(), " and r is ", r.dump(), ", want numbers"));
  }
  const bool stabilised = config.value("use_rslora", json()) == true;
  REIN_ASSIGN_OR_RETURN(File tensors, OpenAdapter(folder));
  const std::vector<Matrix> matrices = MatricesOf(model);
  const Modules modules = ModulesOf(matrices);
  std::vector<std::string> unknown;
  for (const auto& [name, view] : tensors->tensors()) {
    absl::string_view module = name;
    if (absl::ConsumeSuffix(&module, ".lora_B.weight") || name == absl::StrCat(kPrefix, "score.weight")) continue;
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
  return model;
}

void InitializeAdapter(const weights::Registry& registry, uint64_t seed, const ArenaParts& arena) {
  at::NoGradGuard no_grad;
  for (const Parameter& p : registry.parameters()) {
    if (!IsLora(p.spec.name)) continue;
    at::Tensor target = arena.Of(registry, p);
    if (absl::EndsWith(p.spec.name, kLoraUp)) {
      target.zero_();
      continue;
    }
    const uint64_t key[] = {seed, weights::Digest(p.spec.name.data(), p.spec.name.size())};
    at::Generator draws = at::detail::createCPUGenerator(weights::Digest(key, sizeof(key)));
    const double most = 1 / std::sqrt(static_cast<double>(p.spec.shape[1]));
    target.copy_(at::empty({p.elements}, at::kFloat).uniform_(-most, most, draws));
  }
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
                 {"modules_to_save", model.spec.scalar_head ? json::array({"score"}) : json()}};
  REIN_RETURN_IF_ERROR(checkpoint::WriteDurably(folder + "/adapter_config.json", config.dump(2) + "\n"));
  return text_folder.empty() ? absl::OkStatus() : CopyTokenizer(text_folder, folder);
}

absl::StatusOr<MergedModel> Merge(const ModelDescription& model, const weights::Registry& registry, const ArenaParts& arena) {
  MergedModel merged;
  merged.model = model;
  merged.model.spec.lora.clear();
  merged.model.spec.frozen.clear();
  merged.model.spec.quantisation = weights::Quantisation::kNone;
  REIN_ASSIGN_OR_RETURN(merged.registry, weights::Registry::Create(DecoderParameters(merged.model.spec)));
  at::NoGradGuard no_grad;
  const at::Tensor& any = arena.frozen.numel() > 0 ? arena.frozen : arena.trained;
  merged.arena = at::zeros({merged.registry.arena_elements()}, any.options());
  auto flat = [&](const Parameter& p) {
    return p.spec.quantisation == weights::Quantisation::kNone ? arena.Of(registry, p) : nn::Unpacked(arena.MatrixOf(registry, p)).flatten();
  };
  for (const Parameter& p : merged.registry.parameters()) {
    at::Tensor to = merged.arena.narrow(0, p.offset, p.elements), from = flat(*registry.Find(p.spec.name));
    const std::string name = ModuleOf(p.spec.name);
    auto lora = model.spec.lora.find(name);
    if (lora == model.spec.lora.end()) {
      to.copy_(from);
      continue;
    }
    const Parameter &a = *registry.Find(name + kLoraDown), &b = *registry.Find(name + kLoraUp);
    const auto view = [&](const Parameter& q) { return arena.Of(registry, q).view(q.spec.shape); };
    nn::Weight weight{from.view(p.spec.shape), {}};
    weight.updates.push_back({0, p.spec.shape[0], {view(a), {}}, {view(b), {}}, lora->second.scale});
    to.view(p.spec.shape).copy_(nn::Merged(weight));
  }
  return merged;
}

}  // namespace rein::models

#include "common/models/lora.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "common/config/nearest_name.h"
#include "common/models/lora_names.h"
#include "common/status/status_macros.h"
#include "common/weights/digest.h"

namespace rein::models {
namespace {

using weights::Parameter;
using weights::ParameterSpec;

constexpr const char* kAllLinear = "all-linear";

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

absl::Status Save(const std::vector<std::string>& patterns, ModelDescription* model) {
  const std::vector<ParameterSpec> specs = DecoderParameters(model->spec);
  for (const std::string& pattern : patterns) {
    std::vector<std::string> names;
    std::set<std::string> owners;
    for (const ParameterSpec& spec : specs) {
      if (IsLora(spec.name) || spec.name == "score.weight") continue;
      for (std::string& name : NamesOf(*model, spec)) {
        if (MatchesName(pattern, name)) owners.insert(OwnerOf(model->family->places(model->spec, spec)[0].tensor));
        names.push_back(std::move(name));
      }
    }
    if (owners.empty()) {
      return absl::InvalidArgumentError(absl::StrCat("model.lora.save: '", pattern, "' names no parameter of this model", Nearest(pattern, names)));
    }
    for (const ParameterSpec& spec : specs) {  // a module with all that is in it
      if (IsLora(spec.name) || owners.count(OwnerOf(model->family->places(model->spec, spec)[0].tensor)) == 0) continue;
      if (const std::string why = WhyNotSaved(*model, spec); !why.empty()) {
        return absl::InvalidArgumentError(absl::StrCat("model.lora.save: '", pattern, "' is ", spec.name, ", but ", why));
      }
      model->spec.saved.insert(spec.name);
    }
  }
  return absl::OkStatus();
}

absl::Status Freeze(const std::vector<std::string>& patterns, ModelDescription* model) {
  std::vector<std::string> names;
  std::vector<ParameterSpec> specs = DecoderParameters(model->spec);
  auto names_of = [&](const ParameterSpec& spec) { return NamesOf(*model, spec); };
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
  model.spec.kv_fp8 = choice.kv_fp8;
  if (choice.kv_fp8 && model.spec.latent.latent_dim > 0) {
    return absl::InvalidArgumentError(absl::StrCat("model.kv_cache: ", path, " (", model.spec.architecture,
                                                   ") keeps latents, not keys and values, and they stay in the compute format: leave it out"));
  }
  if (choice.lora) {
    if (!model.spec.lora.empty()) {
      return absl::InvalidArgumentError(absl::StrCat(
          "model.lora: ", path, " is an adapter folder, which says itself what it updates: leave model.lora out to train it "
          "further, or merge it first"));
    }
    REIN_RETURN_IF_ERROR(Target(*choice.lora, &model));
    REIN_RETURN_IF_ERROR(Save(choice.lora->save, &model));
  }
  if (!choice.freeze.empty()) REIN_RETURN_IF_ERROR(Freeze(choice.freeze, &model));
  if (choice.base != weights::Quantisation::kNone && model.spec.lora.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "model.base: ", path, " is trained whole, and quantised weights have no gradient: want model.lora, or an adapter folder"));
  }
  model.spec.quantisation = choice.base;
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

absl::StatusOr<MergedModel> Merge(const ModelDescription& model, const weights::Registry& registry, const ArenaParts& arena) {
  MergedModel merged;
  merged.model = model;
  merged.model.spec.lora.clear();
  merged.model.spec.saved.clear();
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

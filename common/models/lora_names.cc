#include "common/models/lora_names.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "common/models/lora.h"

namespace rein::models {

using weights::ParameterSpec;

namespace {

constexpr absl::string_view kWeight = ".weight";

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

}  // namespace

bool MatchesName(absl::string_view pattern, absl::string_view name) {
  if (Glob(pattern, name)) return true;
  for (size_t dot = name.find('.'); dot != absl::string_view::npos; dot = name.find('.', dot + 1)) {
    if (Glob(pattern, name.substr(dot + 1))) return true;
  }
  return false;
}

std::string ModuleOf(const std::string& tensor) { return std::string(absl::StripSuffix(tensor, kWeight)); }

const char* WhyNone(const std::string& name, const TensorPlace& place) {
  if (name == "embedding" || name == "position_embedding") return "is an embedding";
  if (name == "head" || name == "score") return "is the head, whose kernel has no update";
  if (absl::EndsWith(name, ".router")) return "is a router";
  if (absl::EndsWith(name, ".conv")) return "is a convolution";
  if (place.shape.size() > 2) return "is one of several experts in one tensor, for which PEFT has no module";
  return nullptr;
}

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

std::vector<std::string> NamesOf(const ModelDescription& model, const ParameterSpec& spec) {
  std::vector<std::string> of{spec.name};
  if (!IsLora(spec.name)) of.push_back(model.family->places(model.spec, spec)[0].tensor);
  for (size_t i = 0, count = of.size(); i < count; ++i) {
    for (absl::string_view kind : {".weight", ".bias"}) {
      if (absl::EndsWith(of[i], kind)) of.emplace_back(absl::StripSuffix(of[i], kind));
    }
  }
  return of;
}

std::string OwnerOf(const std::string& tensor) { return tensor.substr(0, tensor.rfind('.')); }

std::string WhyNotSaved(const ModelDescription& model, const ParameterSpec& spec) {
  const TensorPlace place = model.family->places(model.spec, spec)[0];
  if (!place.shape.empty()) return absl::StrCat(place.tensor, " holds other parameters too");
  if (spec.name == "embedding.weight" && model.spec.tied_head && !model.spec.scalar_head) return "the head is tied to it, which PEFT would untie";
  if (model.spec.lora.count(ModuleOf(spec.name)) > 0) return "it has an update: name it in target or in save";
  return "";
}

}  // namespace rein::models

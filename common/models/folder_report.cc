#include "common/models/folder_report.h"

#include <ATen/ATen.h>

#include <cstring>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "common/models/kv_size.h"
#include "common/models/weight_files.h"
#include "common/status/status_macros.h"
#include "common/weights/digest.h"

namespace rein::models {
namespace {

namespace fs = std::filesystem;
using checkpoint::SafetensorsFile;
using checkpoint::TensorView;
using nlohmann::ordered_json;

using Files = std::vector<std::unique_ptr<SafetensorsFile>>;

std::map<std::string, const TensorView*> TensorsOf(const Files& files) {
  std::map<std::string, const TensorView*> tensors;
  for (const auto& file : files) {
    for (const auto& [name, view] : file->tensors()) tensors.emplace(name, &view);
  }
  return tensors;
}

uint64_t DigestOf(const std::string& name, const TensorView& view) {
  const std::string head = absl::StrCat(name, " ", view.dtype, " ", absl::StrJoin(view.shape, ","));
  const uint64_t both[] = {weights::Digest(head.data(), head.size()), weights::Digest(view.data, view.size_bytes)};
  return weights::Digest(both, sizeof(both));
}

ordered_json StructureOf(const DecoderSpec& s) {
  ordered_json out = {{"layers", s.num_layers}, {"model_dim", s.model_dim}, {"vocabulary", s.vocab_size},
                      {"context", s.max_positions}, {"heads", s.num_heads}};
  if (s.latent.latent_dim > 0) {
    out["latent_dim"] = s.latent.latent_dim;
    out["latent_rotary_dim"] = s.latent.rotary_dim;
  } else {
    out["kv_heads"] = s.num_kv_heads;
    out["head_dim"] = s.head_dim;
  }
  int64_t sparse = 0, recurrent = 0, sliding = 0;
  for (int64_t n = 0; n < s.num_layers; ++n) {
    const LayerSpec layer = s.layer(n);
    sparse += layer.sparse;
    recurrent += layer.recurrent;
    sliding += layer.window > 0;
  }
  if (sparse < s.num_layers) out["ffn_dim"] = s.ffn_dim;
  if (sparse > 0) {
    out["sparse_layers"] = sparse;
    out["experts"] = s.experts.routing.experts;
    out["chosen_experts"] = s.experts.routing.chosen;
    out["expert_ffn_dim"] = s.experts.ffn_dim;
  }
  if (recurrent > 0) out["recurrent_layers"] = recurrent;
  if (sliding > 0) out["sliding_layers"] = sliding;
  out["tied_head"] = s.tied_head;
  if (s.scalar_head) out["scalar_head"] = true;
  return out;
}

ordered_json ParametersOf(const DecoderSpec& spec, const weights::Registry& registry) {
  std::map<std::string, int64_t> parts;
  for (const weights::Parameter& p : registry.parameters()) {
    const std::string& name = p.spec.name;
    const char* part = absl::StrContains(name, ".experts.")                                  ? "experts"
                       : absl::StrContains(name, ".attention.") || absl::StrContains(name, ".delta.") ? "attention"
                       : absl::StrContains(name, ".mlp.") || absl::StrContains(name, ".shared.") ? "feed_forward"
                       : absl::StartsWith(name, "embedding.") || absl::StartsWith(name, "head.") ? "vocabulary"
                                                                                              : "other";
    parts[part] += p.elements;
  }
  const nn::RoutingRule& routing = spec.experts.routing;
  int64_t active = registry.parameter_count();
  if (routing.experts > 0) active -= parts["experts"] / routing.experts * (routing.experts - routing.chosen);
  ordered_json out = {{"all", registry.parameter_count()}, {"of_a_token", active}};
  for (const auto& [part, count] : parts) out[part] = count;
  return out;
}

// What differs between two tensors of one name; null when nothing does.
ordered_json Difference(const std::string& name, const TensorView& a, const TensorView& b) {
  if (a.dtype != b.dtype || a.shape != b.shape) {
    auto text = [](const TensorView& v) { return absl::StrCat(v.dtype, "[", absl::StrJoin(v.shape, ", "), "]"); };
    return {{"tensor", name}, {"first", text(a)}, {"second", text(b)}};
  }
  if (std::memcmp(a.data, b.data, a.size_bytes) == 0) return nullptr;
  at::Tensor x = FileTensor(a), y = FileTensor(b);
  if (!x.defined()) return {{"tensor", name}, {"bytes", "differ"}};
  x = x.to(at::kDouble);
  at::Tensor d = y.to(at::kDouble) - x;
  return {{"tensor", name},
          {"largest", d.abs().max().item<double>()},
          {"relative", d.norm().item<double>() / std::max(x.norm().item<double>(), 1e-300)}};
}

}  // namespace

ordered_json ListFamilies() {
  ordered_json out = ordered_json::array();
  for (const ModelFamily* family : AllFamilies()) {
    out.push_back({{"architecture", family->architecture}, {"model_type", family->model_type}});
  }
  return out;
}

absl::StatusOr<ordered_json> InspectFolder(const std::string& path) {
  REIN_ASSIGN_OR_RETURN(ModelDescription model, DescribeModel(path));
  REIN_ASSIGN_OR_RETURN(weights::Registry registry,
                        weights::Registry::Create(DecoderParameters(model.spec)));
  ordered_json out = {{"architecture", model.spec.architecture}, {"model_type", model.family->model_type}};
  out["structure"] = StructureOf(model.spec);
  out["parameters"] = ParametersOf(model.spec, registry);
  constexpr int64_t kBf16 = 2, kPage = 16;
  // Training keeps weights (bf16), gradients, master weights and two moments (fp32).
  out["bytes"] = {{"weights_bf16", registry.parameter_count() * kBf16},
                  {"training", registry.parameter_count() * (kBf16 + 4 * static_cast<int64_t>(sizeof(float)))},
                  {"kv_of_a_token_bf16", KvBytesPerPage(model.spec, kPage, kBf16) / kPage}};
  if (!fs::is_directory(path)) return out;
  out["tokenizer"] = fs::exists(path + "/tokenizer.json");
  if (absl::StatusOr<Files> files = OpenWeightFiles(path); files.ok()) {
    for (const auto& file : *files) {
      out["files"].push_back({{"name", fs::path(file->path()).filename()},
                              {"tensors", file->tensors().size()},
                              {"bytes", fs::file_size(file->path())}});
    }
  }
  return out;
}

absl::StatusOr<ordered_json> VerifyFolder(const std::string& folder) {
  REIN_ASSIGN_OR_RETURN(ModelDescription model, DescribeModel(folder));
  REIN_ASSIGN_OR_RETURN(weights::Registry registry,
                        weights::Registry::Create(DecoderParameters(model.spec)));
  REIN_RETURN_IF_ERROR(CheckWeights(folder, model, registry));
  REIN_ASSIGN_OR_RETURN(Files files, OpenWeightFiles(folder));
  std::vector<std::string> faults;
  std::vector<uint64_t> digests;
  int64_t bytes = 0;
  const auto tensors = TensorsOf(files);
  for (const auto& [name, view] : tensors) {
    bytes += static_cast<int64_t>(view->size_bytes);
    digests.push_back(DigestOf(name, *view));
    at::Tensor data = FileTensor(*view);
    if (!data.defined()) continue;
    const int64_t bad = data.numel() - data.to(at::kFloat).isfinite().sum().item<int64_t>();
    if (bad > 0) faults.push_back(absl::StrCat(name, " has ", bad, " of ", data.numel(), " numbers that are not finite"));
  }
  if (!faults.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(folder, ": ", absl::StrJoin(faults, "; ")));
  }
  return ordered_json{{"tensors", tensors.size()},
                      {"bytes", bytes},
                      {"digest", absl::StrFormat("%016x", weights::CombineDigests(digests))}};
}

absl::StatusOr<ordered_json> DiffFolders(const std::string& first, const std::string& second) {
  REIN_ASSIGN_OR_RETURN(Files a_files, OpenWeightFiles(first));
  REIN_ASSIGN_OR_RETURN(Files b_files, OpenWeightFiles(second));
  const auto a = TensorsOf(a_files), b = TensorsOf(b_files);
  ordered_json out = {{"equal", 0}, {"only_in_first", ordered_json::array()},
                      {"only_in_second", ordered_json::array()}, {"different", ordered_json::array()}};
  size_t equal = 0;
  for (const auto& [name, view] : a) {
    auto it = b.find(name);
    if (it == b.end()) {
      out["only_in_first"].push_back(name);
      continue;
    }
    ordered_json difference = Difference(name, *view, *it->second);
    if (difference.is_null()) {
      ++equal;
    } else {
      out["different"].push_back(std::move(difference));
    }
  }
  for (const auto& [name, view] : b) {
    if (a.count(name) == 0) out["only_in_second"].push_back(name);
  }
  out["equal"] = equal;
  return out;
}

}  // namespace rein::models

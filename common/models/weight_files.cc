#include "common/models/weight_files.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cstring>
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
#include "common/checkpoint/model_source.h"
#include "common/checkpoint/safetensors.h"
#include "common/files/read_file.h"
#include "common/json/parse_json.h"
#include "common/models/lora.h"
#include "common/models/model_folder.h"
#include "common/status/status_macros.h"
#include "common/weights/digest.h"

namespace rein::models {
namespace {

namespace fs = std::filesystem;
using checkpoint::SafetensorsFile;
using checkpoint::TensorView;
using nlohmann::json;

constexpr size_t kMaxListed = 20;
constexpr const char* kScale = "_scale_inv";  // of an fp8 tensor: one for each block
constexpr int64_t kScaleBlock = 128;
constexpr const char *kBlocks = "_blocks", *kBlockScales = "_scales";  // of an MXFP4 tensor

absl::Status NoSafetensors(const std::string& folder) {
  std::vector<std::string> pickles;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    const std::string name = entry.path().filename();
    if (absl::EndsWith(name, ".bin") || absl::EndsWith(name, ".pt") || absl::EndsWith(name, ".pth")) {
      pickles.push_back(name);
    }
  }
  if (pickles.empty()) return absl::NotFoundError(folder + "/model.safetensors: no such file");
  return absl::InvalidArgumentError(absl::StrCat(
      folder, ": has weights as pickles only (", absl::StrJoin(pickles, ", "),
      "), which are never opened because they can run code; convert them with: python3 -c \"import "
      "glob, torch, safetensors.torch as s; s.save_file({k: v.contiguous().clone() for f in "
      "sorted(glob.glob('",
      folder, "/*.bin')) for k, v in torch.load(f, map_location='cpu', weights_only=True).items()}, '",
      folder, "/model.safetensors', {'format': 'pt'})\""));
}

at::ScalarType TorchType(const std::string& dtype) {
  if (dtype == "F32") return at::kFloat;
  if (dtype == "BF16") return at::kBFloat16;
  if (dtype == "F16") return at::kHalf;
  if (dtype == "F8_E4M3") return at::kFloat8_e4m3fn;
  return at::ScalarType::Undefined;
}

// MXFP4 (OCP Microscaling Formats 1.0): 32 numbers of 4 bits share a power of two. blocks U8 [E, R, G, 16] and scales U8
// [E, R, G] -> bf16 [E, 32 G, R], which holds them exactly.
at::Tensor FromMxfp4(const TensorView& blocks, const TensorView& scales) {
  auto bytes = [](const TensorView& view) {
    return at::from_blob(const_cast<char*>(view.data), view.shape, at::kByte);
  };
  at::Tensor value = at::tensor({0., .5, 1., 1.5, 2., 3., 4., 6., -0., -.5, -1., -1.5, -2., -3., -4., -6.}, at::kFloat);
  at::Tensor packed = bytes(blocks);
  at::Tensor code = at::stack({packed.bitwise_and(15), packed.bitwise_right_shift(4)}, -1).flatten(3);
  at::Tensor wide = value.index_select(0, code.flatten().to(at::kInt)).view(code.sizes());
  wide = wide * at::exp2(bytes(scales).to(at::kFloat) - 127).unsqueeze(-1);
  return wide.flatten(2).transpose(1, 2).to(at::kBFloat16).contiguous();
}

// fp8 [R, C] times its scales, fp32 [R / 128, C / 128] rounded up, each of a block.
at::Tensor Dequantised(const TensorView& view, const TensorView& scale) {
  at::Tensor blocks = FileTensor(scale).to(at::kFloat);
  at::Tensor wide = blocks.repeat_interleave(kScaleBlock, 0).repeat_interleave(kScaleBlock, 1);
  return FileTensor(view).to(at::kFloat).mul_(
      wide.narrow(0, 0, view.shape[0]).narrow(1, 0, view.shape[1]));
}

std::string Listed(const std::vector<std::string>& problems) {
  std::vector<std::string> first(problems.begin(),
                                 problems.begin() + std::min(problems.size(), kMaxListed));
  std::string text = absl::StrJoin(first, "; ");
  if (problems.size() > kMaxListed) absl::StrAppend(&text, "; and ", problems.size() - kMaxListed, " more");
  return text;
}

// Finds where the parameters of a model stand in the files of a folder.
class FolderMatch {
 public:
  FolderMatch(const ModelDescription& model, const std::vector<std::unique_ptr<SafetensorsFile>>& files)
      : model_(model) {
    for (const auto& file : files) {
      for (const auto& [name, view] : file->tensors()) {
        if (!tensors_.emplace(name, &view).second) problems_.push_back(name + " is in two files");
        prefixed_ = prefixed_ || absl::StartsWith(name, model.family->body_prefix);
      }
    }
  }

  void Match(const weights::Parameter& parameter) {
    if (IsLora(parameter.spec.name)) return;  // of an adapter's file
    const std::vector<TensorPlace> places = model_.family->places(model_.spec, parameter.spec);
    for (const TensorPlace& place : places) {
      const std::vector<int64_t>& wanted = place.shape.empty() ? parameter.spec.shape : place.shape;
      auto it = Find(place.tensor);
      if (it == tensors_.end()) {
        auto blocks = Find(place.tensor + kBlocks), scales = Find(place.tensor + kBlockScales);
        if (blocks == tensors_.end() || scales == tensors_.end()) continue;
        used_.insert({blocks->first, scales->first});
        if (BlocksFit(blocks->first, *blocks->second, *scales->second, wanted)) {
          copies.push_back({&parameter, place, place.tensor, blocks->second, scales->second});
        }
        return;
      }
      used_.insert(it->first);
      if (Fits(it->first, *it->second, wanted)) {
        copies.push_back({&parameter, place, it->first, it->second, ScaleOf(it->first)});
      }
      return;
    }
    // A score is new to the folder of a causal model; a correction to one of an untrained model.
    if (parameter.spec.name == "score.weight") {
      fresh.push_back(&parameter);
    } else if (used_.insert("missing " + places[0].tensor).second) {
      problems_.push_back(places[0].tensor + " is missing");
    }
  }

  absl::Status Finish(const std::string& folder) {
    for (const auto& [name, view] : tensors_) {
      if (used_.count(name) == 0 && !IsScale(name)) CheckUnused(name, *view);
    }
    if (problems_.empty()) return absl::OkStatus();
    return absl::InvalidArgumentError(absl::StrCat(folder, ": ", problems_.size(),
                                                   " tensor(s) do not fit config.json: ",
                                                   Listed(problems_)));
  }

  struct Copy {
    const weights::Parameter* parameter;
    TensorPlace place;
    std::string tensor;
    const TensorView* view;
    const TensorView* scale;  // null: none
  };
  std::vector<Copy> copies;
  std::vector<const weights::Parameter*> fresh;  // begin at 0

 private:
  using Tensors = std::map<std::string, const TensorView*>;

  // Files of the body alone leave its prefix out.
  Tensors::const_iterator Find(const std::string& name) const {
    auto it = tensors_.find(name);
    const absl::string_view prefix = model_.family->body_prefix;
    if (it != tensors_.end() || prefixed_ || !absl::StartsWith(name, prefix)) return it;
    return tensors_.find(name.substr(prefix.size()));
  }

  const TensorView* ScaleOf(const std::string& tensor) const {
    auto it = tensors_.find(tensor + kScale);
    return it == tensors_.end() ? nullptr : it->second;
  }

  bool IsScale(const std::string& name) const {
    return absl::EndsWith(name, kScale) &&
           used_.count(name.substr(0, name.size() - std::strlen(kScale))) > 0;
  }

  bool Fits(const std::string& name, const TensorView& view, const std::vector<int64_t>& wanted) {
    const at::ScalarType type = TorchType(view.dtype);
    std::string fault;
    if (view.shape != wanted || type == at::ScalarType::Undefined) {
      fault = absl::StrCat("want F32, BF16 or F16 [", absl::StrJoin(wanted, ", "), "]");
    } else if (type == at::kFloat8_e4m3fn) {
      const TensorView* scale = ScaleOf(name);
      const auto blocks = [](int64_t size) { return (size + kScaleBlock - 1) / kScaleBlock; };
      const std::vector<int64_t> shape =
          wanted.size() == 2 ? std::vector<int64_t>{blocks(wanted[0]), blocks(wanted[1])}
                             : std::vector<int64_t>();
      if (scale == nullptr || scale->shape != shape || TorchType(scale->dtype) == at::ScalarType::Undefined) {
        fault = absl::StrCat("want ", name, kScale, " [", absl::StrJoin(shape, ", "), "] with it");
      }
    }
    if (fault.empty()) return true;
    if (faulty_.insert(name).second) {
      problems_.push_back(absl::StrCat(name, " is ", view.dtype, "[", absl::StrJoin(view.shape, ", "),
                                       "], ", fault));
    }
    return false;
  }

  bool BlocksFit(const std::string& name, const TensorView& blocks, const TensorView& scales,
                 const std::vector<int64_t>& wanted) {
    const bool three = wanted.size() == 3;
    const std::vector<int64_t> shape =
        three ? std::vector<int64_t>{wanted[0], wanted[2], wanted[1] / 32, 16} : std::vector<int64_t>();
    std::vector<int64_t> scale_shape = shape;
    if (three) scale_shape.pop_back();
    if (three && wanted[1] % 32 == 0 && blocks.dtype == "U8" && scales.dtype == "U8" && blocks.shape == shape &&
        scales.shape == scale_shape) {
      return true;
    }
    if (faulty_.insert(name).second) {
      problems_.push_back(absl::StrCat(name, " is ", blocks.dtype, "[", absl::StrJoin(blocks.shape, ", "),
                                       "], want U8 [", absl::StrJoin(shape, ", "), "] and scales of it"));
    }
    return false;
  }

  bool IsAgain(const TensorView& view, const std::string& original) const {
    auto it = Find(original);
    return it != tensors_.end() && it->second->dtype == view.dtype && it->second->shape == view.shape &&
           std::memcmp(it->second->data, view.data, view.size_bytes) == 0;
  }

  // A checkpoint may carry the head although it is tied; it must then be the embedding again.
  void CheckUnused(const std::string& name, const TensorView& view) {
    const ModelFamily& family = *model_.family;
    if (absl::EndsWith(name, "rotary_emb.inv_freq")) return;
    if (family.skipped != nullptr && family.skipped(model_.spec, name)) return;
    if (family.copies != nullptr) {
      for (const auto& [copy, original] : family.copies(model_.spec)) {
        if (name != copy) continue;
        if (!IsAgain(view, original)) problems_.push_back(absl::StrCat(name, " differs from ", original, ", which it shares"));
        return;
      }
    }
    auto place = [&](const char* parameter) {
      return family.places(model_.spec, {parameter, {1, 1}, {}, true, false})[0].tensor;
    };
    const bool causal_head = name == place("head.weight");
    if (model_.spec.scalar_head && causal_head) return;
    if (!model_.spec.tied_head || !causal_head) {
      problems_.push_back(absl::StrCat(name, " is unknown to ", family.architecture));
      return;
    }
    if (!IsAgain(view, place("embedding.weight"))) problems_.push_back(name + " differs from the embedding although config.json ties them");
  }

  const ModelDescription& model_;
  Tensors tensors_;
  bool prefixed_ = false;
  std::set<std::string> used_, faulty_;
  std::vector<std::string> problems_;
};

}  // namespace

absl::StatusOr<std::vector<std::unique_ptr<SafetensorsFile>>> OpenWeightFiles(
    const std::string& folder) {
  std::set<std::string> names;
  const std::string index_path = folder + "/model.safetensors.index.json";
  if (fs::exists(index_path)) {
    REIN_ASSIGN_OR_RETURN(json index, rein::json::ReadJsonFile(index_path));
    const json map = index.is_object() ? index.value("weight_map", json()) : json();
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
    if (fs::is_directory(folder) && !fs::exists(folder + "/model.safetensors")) return NoSafetensors(folder);
    names.insert("model.safetensors");
  }
  std::vector<std::unique_ptr<SafetensorsFile>> files;
  for (const std::string& name : names) {
    REIN_ASSIGN_OR_RETURN(files.emplace_back(), SafetensorsFile::Open(folder + "/" + name));
  }
  return files;
}

at::Tensor FileTensor(const TensorView& view) {
  const at::ScalarType type = TorchType(view.dtype);
  if (type == at::ScalarType::Undefined) return {};
  return at::from_blob(const_cast<char*>(view.data), view.shape, type);
}

absl::Status CheckWeights(const std::string& folder, const ModelDescription& model,
                          const weights::Registry& registry) {
  REIN_ASSIGN_OR_RETURN(auto files, OpenWeightFiles(folder));
  FolderMatch match(model, files);
  for (const weights::Parameter& parameter : registry.parameters()) match.Match(parameter);
  return match.Finish(folder);
}

namespace {

// Of quantised weights: a number that is not finite would make others of its block so.
absl::Status CheckFinite(const std::string& folder, const weights::Registry& registry, const ArenaParts& arena) {
  if (!arena.quantised.scale.defined() || at::isfinite(arena.quantised.scale).all().item<bool>()) return absl::OkStatus();
  for (const weights::Parameter& p : registry.parameters()) {
    if (p.spec.quantisation == weights::Quantisation::kNone) continue;
    if (at::isfinite(arena.MatrixOf(registry, p).scale).all().item<bool>()) continue;
    return absl::InvalidArgumentError(absl::StrCat(folder, ": ", p.spec.name, " has a number that is not finite and cannot be quantised"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status LoadWeights(const std::string& folder, const ModelDescription& model,
                         const weights::Registry& registry, const at::Tensor& arena) {
  return LoadWeights(folder, model, registry, PartsOf(registry, arena));
}

absl::Status LoadWeights(const std::string& folder, const ModelDescription& model,
                         const weights::Registry& registry, const ArenaParts& arena) {
  REIN_ASSIGN_OR_RETURN(checkpoint::ModelSource source, checkpoint::FindModel(folder));
  REIN_ASSIGN_OR_RETURN(auto files, OpenWeightFiles(source.weights));
  FolderMatch match(model, files);
  for (const weights::Parameter& parameter : registry.parameters()) match.Match(parameter);
  REIN_RETURN_IF_ERROR(match.Finish(source.weights));
  at::NoGradGuard no_grad;
  for (const weights::Parameter* parameter : match.fresh) arena.Of(registry, *parameter).zero_();
  // Parameters that share a tensor come one after another.
  std::string wide_name;
  at::Tensor wide;
  for (const FolderMatch::Copy& copy : match.copies) {
    at::Tensor from = copy.scale == nullptr ? FileTensor(*copy.view) : wide;
    if (copy.scale != nullptr && copy.tensor != wide_name) {
      const bool fp8 = copy.view->dtype == "F8_E4M3";
      from = wide = fp8 ? Dequantised(*copy.view, *copy.scale) : FromMxfp4(*copy.view, *copy.scale);
      wide_name = copy.tensor;
    }
    const bool whole = copy.place.shape.empty();
    if (!whole) from = from.as_strided(copy.place.sizes, copy.place.strides, copy.place.offset);
    if (copy.parameter->spec.quantisation != weights::Quantisation::kNone) {
      const nn::QuantisedMatrix matrix = arena.MatrixOf(registry, *copy.parameter);
      nn::Quantise(from.to(matrix.code.device(), at::kFloat).contiguous(), matrix);
      continue;
    }
    arena.Of(registry, *copy.parameter)
        .view(whole ? copy.parameter->local_shape : copy.place.sizes)
        .copy_(from);
  }
  REIN_RETURN_IF_ERROR(CheckFinite(source.weights, registry, arena));
  return source.adapter.empty() ? absl::OkStatus() : LoadAdapter(source.adapter, model, registry, arena);
}

void InitializeWeights(const DecoderSpec& spec, const weights::Registry& registry, uint64_t seed,
                       const at::Tensor& arena) {
  constexpr double kDeviation = 0.02;
  at::NoGradGuard no_grad;
  arena.zero_();
  for (const weights::Parameter& parameter : registry.parameters()) {
    at::Tensor target = arena.narrow(0, parameter.offset, parameter.elements);
    if (absl::EndsWith(parameter.spec.name, "norm.weight")) {
      const bool plain = absl::EndsWith(parameter.spec.name, ".delta.norm.weight");
      target.fill_(spec.norm == nn::NormKind::kRmsPlusOne && !plain ? 0 : 1);
    } else if (parameter.spec.shape.size() > 1) {
      const uint64_t key[] = {
          seed, weights::Digest(parameter.spec.name.data(), parameter.spec.name.size())};
      at::Generator generator = at::detail::createCPUGenerator(weights::Digest(key, sizeof(key)));
      target.copy_(at::empty({parameter.elements}, at::kFloat).normal_(0, kDeviation, generator));
    }
  }
}

namespace {

// The tensors of a checkpoint, in the order of the arena. Fused ones are put together in `fused`.
absl::StatusOr<std::vector<checkpoint::NamedTensor>> CheckpointTensors(
    const ModelDescription& model, const weights::Registry& registry, const at::Tensor& host,
    std::map<std::string, at::Tensor>* fused) {
  std::vector<checkpoint::NamedTensor> tensors;
  auto add = [&](const std::string& name, const at::Tensor& data) {
    tensors.push_back({name, {data.scalar_type() == at::kBFloat16 ? "BF16" : "F32", data.sizes().vec(),
                              static_cast<const char*>(data.const_data_ptr()),
                              static_cast<size_t>(data.numel() * data.element_size())}});
  };
  std::map<std::string, int64_t> filled;
  for (const weights::Parameter& p : registry.parameters()) {
    const TensorPlace place = model.family->places(model.spec, p.spec)[0];
    at::Tensor data = host.narrow(0, p.offset, p.elements);
    const bool correction = absl::EndsWith(p.spec.name, "router.correction");  // fp32 in every file
    if (place.shape.empty() && !correction) {
      add(place.tensor, data.view(p.spec.shape));
      continue;
    }
    auto [it, first] = fused->try_emplace(place.tensor);
    const std::vector<int64_t>& shape = place.shape.empty() ? p.spec.shape : place.shape;
    if (first) {
      it->second = at::zeros(shape, host.options().dtype(correction ? at::kFloat : host.scalar_type()));
      add(place.tensor, it->second);
    }
    if (place.shape.empty()) {
      it->second.copy_(data.view(p.spec.shape));
    } else {
      it->second.as_strided(place.sizes, place.strides, place.offset).copy_(data.view(place.sizes));
    }
    filled[place.tensor] += p.elements;
  }
  if (model.family->copies != nullptr) {
    for (const auto& [copy, original] : model.family->copies(model.spec)) {
      auto from = std::find_if(tensors.begin(), tensors.end(), [&](const auto& t) { return t.name == original; });
      if (from == tensors.end()) return absl::InternalError(absl::StrCat(copy, ": there is no ", original, " to copy"));
      const checkpoint::TensorView view = from->view;
      tensors.push_back({copy, view});
    }
  }
  for (const auto& [name, elements] : filled) {
    if (elements == fused->at(name).numel()) continue;
    return absl::InternalError(absl::StrCat(name, ": parameters fill ", elements, " of ",
                                            fused->at(name).numel(), " elements"));
  }
  return tensors;
}

}  // namespace

absl::Status SaveModelFolder(const std::string& folder, const ModelDescription& model,
                             const weights::Registry& registry, const at::Tensor& arena,
                             const std::string& source_folder) {
  std::error_code error;
  fs::create_directories(folder, error);
  if (error) return absl::InternalError(absl::StrCat("cannot make ", folder, ": ", error.message()));
  at::Tensor host = arena.to(at::kCPU).contiguous();
  const bool bf16 = host.scalar_type() == at::kBFloat16;
  std::map<std::string, at::Tensor> fused;
  REIN_ASSIGN_OR_RETURN(auto tensors, CheckpointTensors(model, registry, host, &fused));
  REIN_RETURN_IF_ERROR(checkpoint::WriteSafetensors(folder + "/model.safetensors", tensors,
                                                    {{"format", "pt"}}));
  json config = json::parse(model.config_json);
  config.erase("dtype");
  config.erase("quantization_config");
  if (config.contains("num_nextn_predict_layers")) config["num_nextn_predict_layers"] = model.spec.mtp_layers;
  config["torch_dtype"] = bf16 ? "bfloat16" : "float32";
  REIN_RETURN_IF_ERROR(
      checkpoint::WriteDurably(folder + "/config.json", config.dump(2) + "\n"));
  return source_folder.empty() ? absl::OkStatus() : CopyTokenizer(source_folder, folder);
}

absl::Status CopyTokenizer(const std::string& source_folder, const std::string& folder) {
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

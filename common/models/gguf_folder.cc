#include "common/models/gguf_folder.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <numbers>
#include <optional>
#include <set>

#include "absl/strings/numbers.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "common/checkpoint/durable_file.h"
#include "common/checkpoint/gguf.h"
#include "common/checkpoint/model_source.h"
#include "common/models/gguf_tokenizer.h"
#include "common/models/model_folder.h"
#include "common/models/tensor_place.h"
#include "common/status/status_macros.h"

namespace rein::models {
namespace {

namespace fs = std::filesystem;
using checkpoint::GgufFile;
using checkpoint::GgufMetadata;
using checkpoint::GgufTensor;
using checkpoint::GgufType;
using checkpoint::GgufValue;
using nlohmann::json;
using nlohmann::ordered_json;

struct Architecture {
  const char* name;        // general.architecture
  const char* family;      // of config.json
  const char* model_type;
  bool interleaved;        // rows of q and k
};
constexpr Architecture kArchitectures[] = {{"llama", "LlamaForCausalLM", "llama", true},
                                           {"qwen2", "Qwen2ForCausalLM", "qwen2", false},
                                           {"qwen3", "Qwen3ForCausalLM", "qwen3", false}};
constexpr const char* kRopeFactors = "rope_freqs.weight";

// The tensor of a parameter of the decoder.
std::string TensorOf(const std::string& parameter) {
  static const auto& names = *new NameMap{{"embedding.", "token_embd."},
                                          {"norm.", "output_norm."},
                                          {"head.", "output."},
                                          {"layers.#.attention_norm.", "blk.#.attn_norm."},
                                          {"layers.#.mlp_norm.", "blk.#.ffn_norm."},
                                          {"layers.#.attention.q_norm.", "blk.#.attn_q_norm."},
                                          {"layers.#.attention.k_norm.", "blk.#.attn_k_norm."},
                                          {"layers.#.attention.q.", "blk.#.attn_q."},
                                          {"layers.#.attention.k.", "blk.#.attn_k."},
                                          {"layers.#.attention.v.", "blk.#.attn_v."},
                                          {"layers.#.attention.output.", "blk.#.attn_output."},
                                          {"layers.#.mlp.gate.", "blk.#.ffn_gate."},
                                          {"layers.#.mlp.up.", "blk.#.ffn_up."},
                                          {"layers.#.mlp.down.", "blk.#.ffn_down."}};
  return MappedName(names, parameter);
}

// Heads of a parameter whose rows are interleaved; 0 for the others.
int64_t InterleavedHeads(const Architecture& architecture, const DecoderSpec& spec, const std::string& parameter) {
  if (!architecture.interleaved) return 0;
  if (absl::StrContains(parameter, ".attention.q.")) return spec.num_heads;
  return absl::StrContains(parameter, ".attention.k.") ? spec.num_kv_heads : 0;
}

// Both halves of each head's rows one after the other -> row by row in turn, and back.
at::Tensor Interleave(const at::Tensor& x, int64_t heads) {
  return x.view({heads, 2, x.size(0) / heads / 2, -1}).transpose(1, 2).contiguous().view(x.sizes());
}
at::Tensor Separate(const at::Tensor& x, int64_t heads) {
  return x.view({heads, x.size(0) / heads / 2, 2, -1}).transpose(1, 2).contiguous().view(x.sizes());
}

// fp32 numbers of a tensor of any type (ggml's block formats: a scale, maybe a least value, 32 codes).
at::Tensor Numbers(const GgufTensor& t) {
  auto raw = [&](std::vector<int64_t> shape, at::ScalarType type) {
    return at::from_blob(const_cast<char*>(t.data), shape, type);
  };
  if (t.type == GgufType::kF32) return raw(t.shape, at::kFloat);
  if (t.type == GgufType::kF16) return raw(t.shape, at::kHalf).to(at::kFloat);
  if (t.type == GgufType::kBF16) return raw(t.shape, at::kBFloat16).to(at::kFloat);
  const int64_t blocks = t.elements() / 32;
  at::Tensor bytes = raw({blocks, static_cast<int64_t>(t.size_bytes) / blocks}, at::kByte);
  auto half = [&](int64_t at) {
    return bytes.narrow(1, at, 2).contiguous().view(at::kHalf).to(at::kFloat);
  };
  if (t.type == GgufType::kQ8_0) {
    return (bytes.narrow(1, 2, 32).contiguous().view(at::kChar).to(at::kFloat) * half(0)).view(t.shape);
  }
  const bool least = t.type == GgufType::kQ4_1;
  at::Tensor codes = bytes.narrow(1, least ? 4 : 2, 16);
  at::Tensor q = at::cat({codes.bitwise_and(15), codes.bitwise_right_shift(4)}, 1).to(at::kFloat);
  return (least ? q * half(0) + half(2) : (q - 8) * half(0)).view(t.shape);
}

// Metadata by key below the architecture's name.
class Keys {
 public:
  Keys(const GgufFile& file, std::string prefix) : file_(file), prefix_(std::move(prefix)) {}

  std::optional<double> Find(const std::string& key) const {
    const GgufValue* value = file_.Metadata(prefix_ + key);
    if (value == nullptr) return std::nullopt;
    if (const auto* whole = std::get_if<int64_t>(value)) return static_cast<double>(*whole);
    if (const auto* real = std::get_if<double>(value)) return *real;
    return std::nullopt;
  }
  std::string Text(const std::string& key) const {
    const GgufValue* value = file_.Metadata(prefix_ + key);
    const auto* text = value == nullptr ? nullptr : std::get_if<std::string>(value);
    return text == nullptr ? "" : *text;
  }
  int64_t Count(const std::string& key) {
    const std::optional<double> found = Find(key);
    if (!found || *found < 1) missing_.push_back(prefix_ + key);
    return static_cast<int64_t>(found.value_or(0));
  }
  // As a decimal of float32's precision: 1e-06, not 9.99999997e-07.
  double Real(const std::string& key) {
    const std::optional<double> found = Find(key);
    if (!found) missing_.push_back(prefix_ + key);
    double rounded = 0;
    return absl::SimpleAtod(absl::StrFormat("%.7g", found.value_or(0)), &rounded) ? rounded : 0;
  }
  absl::Status Complete() const {
    if (missing_.empty()) return absl::OkStatus();
    return absl::InvalidArgumentError(absl::StrCat(file_.path(), ": lacks ", absl::StrJoin(missing_, ", ")));
  }

 private:
  const GgufFile& file_;
  const std::string prefix_;
  std::vector<std::string> missing_;
};

// What llama3 scaling divides each frequency by (convert_hf_to_gguf.py, LlamaModel.generate_extra_tensors).
at::Tensor RopeFactors(double theta, int64_t dims, const RopeScaling& s) {
  std::vector<double> factors;
  const auto original = static_cast<double>(s.original_max_positions);
  for (int64_t i = 0; i < dims; i += 2) {
    const double wavelength = 2 * std::numbers::pi * std::pow(theta, static_cast<double>(i) / static_cast<double>(dims));
    if (wavelength < original / s.high_freq_factor) {
      factors.push_back(1);
    } else if (wavelength > original / s.low_freq_factor) {
      factors.push_back(s.factor);
    } else {
      const double smooth = (original / wavelength - s.low_freq_factor) / (s.high_freq_factor - s.low_freq_factor);
      factors.push_back(1 / ((1 - smooth) / s.factor + smooth));
    }
  }
  return at::tensor(factors, at::kDouble).to(at::kFloat);
}

// The file holds what llama3 scaling comes to; the published settings are tried.
absl::StatusOr<json> ScalingOf(const GgufFile& file, const Keys& keys, double theta, int64_t dims, int64_t context) {
  const std::string type = keys.Text("rope.scaling.type");
  const double factor = keys.Find("rope.scaling.factor").value_or(1);
  if (const GgufTensor* factors = file.Find(kRopeFactors)) {
    for (double whole : {8.0, 32.0}) {
      RopeScaling s{.kind = RopeScaling::Kind::kLlama3, .factor = whole, .low_freq_factor = 1, .high_freq_factor = 4, .original_max_positions = 8192};
      at::Tensor wanted = RopeFactors(theta, dims, s);
      if (factors->elements() == wanted.numel() && at::allclose(Numbers(*factors).flatten(), wanted, 1e-4, 1e-4)) {
        return json{{"rope_type", "llama3"}, {"factor", whole}, {"low_freq_factor", 1.0}, {"high_freq_factor", 4.0},
                    {"original_max_position_embeddings", 8192}};
      }
    }
    return absl::InvalidArgumentError(absl::StrCat(file.path(), ": ", kRopeFactors, " are not those of Llama 3.1 or 3.2, and the file does not "
                                                                                    "say what made them"));
  }
  if (type.empty() || type == "none") return json();
  if (type == "linear") return json{{"rope_type", "linear"}, {"factor", factor}};
  if (type == "yarn") {
    const double original = keys.Find("rope.scaling.original_context_length").value_or(static_cast<double>(context) / factor);
    return json{{"rope_type", "yarn"}, {"factor", factor}, {"original_max_position_embeddings", static_cast<int64_t>(original)}};
  }
  return absl::InvalidArgumentError(absl::StrCat(file.path(), ": rope.scaling.type is '", type, "', want none, linear or yarn"));
}

absl::StatusOr<json> ConfigOf(const GgufFile& file, const Architecture& architecture) {
  Keys keys(file, absl::StrCat(architecture.name, "."));
  const GgufTensor* embedding = file.Find("token_embd.weight");
  if (embedding == nullptr || embedding->shape.size() != 2) return absl::InvalidArgumentError(file.path() + ": lacks token_embd.weight");
  json config = {{"architectures", {architecture.family}}, {"model_type", architecture.model_type},
                 {"vocab_size", embedding->shape[0]},
                 {"hidden_size", keys.Count("embedding_length")},
                 {"intermediate_size", keys.Count("feed_forward_length")},
                 {"num_hidden_layers", keys.Count("block_count")},
                 {"num_attention_heads", keys.Count("attention.head_count")},
                 {"max_position_embeddings", keys.Count("context_length")},
                 {"rms_norm_eps", keys.Real("attention.layer_norm_rms_epsilon")},
                 {"hidden_act", "silu"}, {"tie_word_embeddings", file.Find("output.weight") == nullptr}};
  REIN_RETURN_IF_ERROR(keys.Complete());
  const int64_t heads = config["num_attention_heads"];
  config["num_key_value_heads"] = static_cast<int64_t>(keys.Find("attention.head_count_kv").value_or(static_cast<double>(heads)));
  const int64_t dims = static_cast<int64_t>(keys.Find("attention.key_length").value_or(
      static_cast<double>(config["hidden_size"].get<int64_t>() / heads)));
  config["head_dim"] = dims;
  const double theta = keys.Find("rope.freq_base").value_or(10000);
  config["rope_theta"] = theta;
  REIN_ASSIGN_OR_RETURN(json scaling, ScalingOf(file, keys, theta, dims, config["max_position_embeddings"]));
  if (!scaling.is_null()) config["rope_scaling"] = scaling;
  if (architecture.interleaved) {
    config["attention_bias"] = file.Find("blk.0.attn_output.bias") != nullptr;
    config["mlp_bias"] = file.Find("blk.0.ffn_down.bias") != nullptr;
  }
  for (auto [key, of] : {std::pair{"bos_token_id", "bos_token_id"}, {"eos_token_id", "eos_token_id"}, {"pad_token_id", "padding_token_id"}}) {
    const std::optional<double> id = Keys(file, "tokenizer.ggml.").Find(of);
    if (id) config[key] = static_cast<int64_t>(*id);
  }
  return config;
}

absl::Status FillArena(const GgufFile& file, const Architecture& architecture, const ModelDescription& model,
                       const weights::Registry& registry, const at::Tensor& arena) {
  std::vector<std::string> problems;
  std::set<std::string> used = {kRopeFactors};
  for (const weights::Parameter& p : registry.parameters()) {
    const std::string name = TensorOf(p.spec.name);
    const GgufTensor* tensor = file.Find(name);
    used.insert(name);
    if (tensor == nullptr || tensor->shape != p.spec.shape) {
      problems.push_back(absl::StrCat(name, tensor == nullptr ? " is missing" : absl::StrCat(" is [", absl::StrJoin(tensor->shape, ", "), "]"),
                                      ", want [", absl::StrJoin(p.spec.shape, ", "), "]"));
      continue;
    }
    at::Tensor x = Numbers(*tensor);
    const int64_t heads = InterleavedHeads(architecture, model.spec, p.spec.name);
    arena.narrow(0, p.offset, p.elements).view(p.spec.shape).copy_(heads > 0 ? Separate(x, heads) : x);
  }
  for (const auto& [name, tensor] : file.tensors()) {
    if (used.count(name) == 0) problems.push_back(name + " is unknown");
  }
  if (problems.empty()) return absl::OkStatus();
  constexpr size_t kMostListed = 20;
  const size_t count = problems.size();
  problems.resize(std::min(count, kMostListed));
  return absl::InvalidArgumentError(absl::StrCat(file.path(), ": ", count, " tensor(s) do not fit: ", absl::StrJoin(problems, "; ")));
}

// The scaling's keys; INVALID_ARGUMENT for a kind without any.
absl::Status AddScaling(const std::string& prefix, const RopeSpec& rope, GgufMetadata* keys) {
  const RopeScaling& s = rope.scaling;
  switch (s.kind) {
    case RopeScaling::Kind::kNone:
    case RopeScaling::Kind::kLlama3:  // a tensor
      return absl::OkStatus();
    case RopeScaling::Kind::kLinear:
      keys->emplace_back(prefix + "rope.scaling.type", std::string("linear"));
      keys->emplace_back(prefix + "rope.scaling.factor", s.factor);
      return absl::OkStatus();
    case RopeScaling::Kind::kYarn:
      keys->emplace_back(prefix + "rope.scaling.type", std::string("yarn"));
      keys->emplace_back(prefix + "rope.scaling.factor", s.factor);
      keys->emplace_back(prefix + "rope.scaling.original_context_length", s.original_max_positions);
      return absl::OkStatus();
    case RopeScaling::Kind::kLongRope:
      break;
  }
  return absl::InvalidArgumentError("longrope scaling has no form in these architectures of GGUF");
}

}  // namespace

absl::StatusOr<ordered_json> ImportGguf(const std::string& path, const std::string& to) {
  if (fs::exists(to)) return absl::AlreadyExistsError(to + " is there already");
  REIN_ASSIGN_OR_RETURN(auto file, GgufFile::Open(path));
  const std::string name = Keys(*file, "general.").Text("architecture");
  const Architecture* architecture = nullptr;
  for (const Architecture& one : kArchitectures) {
    if (name == one.name) architecture = &one;
  }
  if (architecture == nullptr) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": general.architecture is '", name, "', want llama, qwen2 or qwen3"));
  }
  REIN_ASSIGN_OR_RETURN(json config, ConfigOf(*file, *architecture));
  const std::string temporary = to + ".part";
  fs::remove_all(temporary);
  fs::create_directories(temporary);
  REIN_RETURN_IF_ERROR(checkpoint::WriteDurably(temporary + "/config.json", config.dump(2) + "\n"));
  REIN_ASSIGN_OR_RETURN(ModelDescription model, DescribeModel(temporary));
  REIN_ASSIGN_OR_RETURN(weights::Registry registry, weights::Registry::Create(DecoderParameters(model.spec)));
  at::NoGradGuard no_grad;
  const bool wide = std::all_of(file->tensors().begin(), file->tensors().end(),
                                [](const auto& one) { return one.second.type == GgufType::kF32; });
  at::Tensor arena = at::zeros({registry.arena_elements()}, wide ? at::kFloat : at::kBFloat16);
  absl::Status filled = FillArena(*file, *architecture, model, registry, arena);
  if (filled.ok()) filled = SaveModelFolder(temporary, model, registry, arena, "");
  absl::StatusOr<bool> text = filled.ok() ? WriteTokenizer(*file, temporary) : absl::StatusOr<bool>(filled);
  if (!text.ok()) {
    fs::remove_all(temporary);
    return text.status();
  }
  std::error_code error;
  fs::rename(temporary, to, error);
  if (error) return absl::ErrnoToStatus(error.value(), absl::StrCat("cannot write ", to));
  return ordered_json{{"folder", to}, {"architecture", architecture->family}, {"parameters", registry.parameter_count()},
                      {"dtype", wide ? "float32" : "bfloat16"}, {"tokenizer", *text}};
}

absl::StatusOr<ordered_json> ExportGguf(const std::string& folder, const std::string& path, const std::string& dtype,
                                        bool with_tokenizer) {
  if (fs::exists(path)) return absl::AlreadyExistsError(path + " is there already");
  REIN_ASSIGN_OR_RETURN(ModelDescription model, DescribeModel(folder));
  const DecoderSpec& s = model.spec;
  const Architecture* architecture = nullptr;
  for (const Architecture& one : kArchitectures) {
    if (s.architecture == one.family) architecture = &one;
  }
  if (architecture == nullptr || s.scalar_head || !s.lora.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(folder, ": is ", s.architecture, s.lora.empty() ? "" : " with an adapter (merge it first)",
                                                   ", want a LlamaForCausalLM, Qwen2ForCausalLM or Qwen3ForCausalLM"));
  }
  const GgufType type = dtype == "f32" ? GgufType::kF32 : dtype == "f16" ? GgufType::kF16 : GgufType::kBF16;
  const std::string prefix = absl::StrCat(architecture->name, ".");
  const int64_t file_type = type == GgufType::kF32 ? 0 : type == GgufType::kF16 ? 1 : 32;
  GgufMetadata keys = {{"general.architecture", std::string(architecture->name)}, {"general.type", std::string("model")},
                       {"general.name", fs::path(folder).filename().string()}, {"general.file_type", file_type},
                       {prefix + "block_count", s.num_layers}, {prefix + "context_length", s.max_positions},
                       {prefix + "embedding_length", s.model_dim}, {prefix + "feed_forward_length", s.ffn_dim},
                       {prefix + "attention.head_count", s.num_heads}, {prefix + "attention.head_count_kv", s.num_kv_heads},
                       {prefix + "attention.key_length", s.head_dim}, {prefix + "attention.value_length", s.head_dim},
                       {prefix + "attention.layer_norm_rms_epsilon", s.norm_epsilon}, {prefix + "rope.freq_base", s.ropes[0].theta},
                       {prefix + "rope.dimension_count", s.head_dim}, {prefix + "vocab_size", s.vocab_size}};
  REIN_RETURN_IF_ERROR(AddScaling(prefix, s.ropes[0], &keys));
  for (int64_t n = 0; n < s.num_layers; ++n) {
    if (s.layer(n).window > 0) return absl::InvalidArgumentError(folder + ": sliding windows have no form in these architectures of GGUF");
  }
  if (with_tokenizer) {
    REIN_ASSIGN_OR_RETURN(checkpoint::ModelSource source, checkpoint::FindModel(folder));
    REIN_ASSIGN_OR_RETURN(GgufMetadata text, TokenizerKeys(source.text, s.vocab_size, json::parse(model.config_json)));
    keys.insert(keys.end(), std::make_move_iterator(text.begin()), std::make_move_iterator(text.end()));
  }
  REIN_ASSIGN_OR_RETURN(weights::Registry registry, weights::Registry::Create(DecoderParameters(s)));
  at::NoGradGuard no_grad;
  at::Tensor arena = at::zeros({registry.arena_elements()});
  REIN_RETURN_IF_ERROR(LoadWeights(folder, model, registry, arena));
  std::vector<at::Tensor> held;
  std::vector<std::pair<std::string, GgufTensor>> tensors;
  auto add = [&](const std::string& name, const at::Tensor& x, GgufType as) {
    at::Tensor data = x.to(as == GgufType::kF32 ? at::kFloat : as == GgufType::kF16 ? at::kHalf : at::kBFloat16).contiguous();
    held.push_back(data);
    tensors.push_back({name, {data.sizes().vec(), as, static_cast<const char*>(data.const_data_ptr()),
                              static_cast<size_t>(data.numel() * data.element_size())}});
  };
  if (s.ropes[0].scaling.kind == RopeScaling::Kind::kLlama3) {
    add(kRopeFactors, RopeFactors(s.ropes[0].theta, s.head_dim, s.ropes[0].scaling), GgufType::kF32);
  }
  for (const weights::Parameter& p : registry.parameters()) {
    at::Tensor x = arena.narrow(0, p.offset, p.elements).view(p.spec.shape);
    const int64_t heads = InterleavedHeads(*architecture, s, p.spec.name);
    add(TensorOf(p.spec.name), heads > 0 ? Interleave(x, heads) : x, x.dim() == 1 ? GgufType::kF32 : type);
  }
  REIN_RETURN_IF_ERROR(checkpoint::WriteGguf(path, keys, tensors));
  return ordered_json{{"file", path}, {"architecture", architecture->name}, {"tensors", tensors.size()}, {"dtype", dtype},
                      {"tokenizer", with_tokenizer}};
}

}  // namespace rein::models

#include "common/models/gguf_tokenizer.h"

#include <algorithm>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "common/checkpoint/durable_file.h"
#include "common/files/read_file.h"
#include "common/json/parse_json.h"
#include "common/status/status_macros.h"

namespace rein::models {
namespace {

namespace fs = std::filesystem;
using checkpoint::GgufMetadata;
using checkpoint::GgufValue;
using nlohmann::json;

enum TokenType : int64_t { kNormal = 1, kControl = 3, kUserDefined = 4, kUnused = 5 };

json ByteLevel(bool regex, bool prefix = false) {
  return {{"type", "ByteLevel"}, {"add_prefix_space", prefix}, {"trim_offsets", regex || prefix}, {"use_regex", regex}};
}

json Split(const char* regex) {
  return {{"type", "Split"}, {"pattern", {{"Regex", regex}}}, {"behavior", "Isolated"}, {"invert", false}};
}

json Sequence(json first, json second) {
  return {{"type", "Sequence"}, {"pretokenizers", json::array({std::move(first), std::move(second)})}};
}

constexpr const char* kQwen =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
constexpr const char* kLlama3 =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

// By llama.cpp's name, tokenizer.ggml.pre.
const std::map<std::string, json>& PreTokenizers() {
  static const auto& table = *new std::map<std::string, json>{
      {"gpt-2", ByteLevel(true)},
      {"qwen2", Sequence(Split(kQwen), ByteLevel(false))},
      {"llama-bpe", Sequence(Split(kLlama3), ByteLevel(false))},
      {"smollm", Sequence({{"type", "Digits"}, {"individual_digits", true}}, ByteLevel(true))}};
  return table;
}

// What of a pre-tokenizer decides how it cuts.
std::string Rule(const json& pre) {
  if (!pre.is_object()) return "";
  const std::string type = pre.value("type", "");
  if (type == "Sequence") {
    std::vector<std::string> rules;
    for (const json& one : pre.value("pretokenizers", json::array())) rules.push_back(Rule(one));
    return absl::StrJoin(rules, " then ");
  }
  if (type == "ByteLevel") return absl::StrCat("ByteLevel", pre.value("use_regex", true), pre.value("add_prefix_space", true));
  if (type == "Digits") return absl::StrCat("Digits", pre.value("individual_digits", false));
  if (type == "Split") {
    const json pattern = pre.value("pattern", json::object());
    return absl::StrCat("Split ", pattern.value("Regex", ""), " ", pre.value("behavior", ""), pre.value("invert", false));
  }
  return absl::StrCat(type, "?");
}

const std::vector<std::string>* Texts(const checkpoint::GgufFile& file, const char* key) {
  const GgufValue* value = file.Metadata(key);
  return value == nullptr ? nullptr : std::get_if<std::vector<std::string>>(value);
}

std::string Text(const checkpoint::GgufFile& file, const char* key) {
  const GgufValue* value = file.Metadata(key);
  const auto* text = value == nullptr ? nullptr : std::get_if<std::string>(value);
  return text == nullptr ? "" : *text;
}

std::string ChatTemplate(const std::string& folder, const json& tokenizer_config) {
  std::error_code error;
  if (fs::exists(folder + "/chat_template.jinja", error)) {
    absl::StatusOr<std::string> text = files::ReadFile(folder + "/chat_template.jinja", 1 << 22);
    if (text.ok()) return *text;
  }
  const json found = tokenizer_config.value("chat_template", json());
  return found.is_string() ? found.get<std::string>() : "";
}

}  // namespace

absl::StatusOr<GgufMetadata> TokenizerKeys(const std::string& folder, int64_t vocabulary, const json& config) {
  const std::string path = folder + "/tokenizer.json";
  REIN_ASSIGN_OR_RETURN(json tokenizer, rein::json::ReadJsonFile(path));
  const json model = tokenizer.value("model", json::object()), pre = tokenizer.value("pre_tokenizer", json());
  if (model.value("type", "") != "BPE" || model.value("byte_fallback", false)) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": is no byte-level BPE; --no-tokenizer leaves the vocabulary out"));
  }
  std::string name;
  for (const auto& [known, rule] : PreTokenizers()) {
    if (Rule(rule) == Rule(pre)) name = known;
  }
  if (name.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": its pre_tokenizer is none of gpt-2, qwen2, llama-bpe and smollm, which have "
                                                         "a name in GGUF; --no-tokenizer leaves the vocabulary out"));
  }
  std::vector<std::string> tokens(static_cast<size_t>(vocabulary));
  std::vector<int64_t> types(static_cast<size_t>(vocabulary), kUnused);
  for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = absl::StrCat("[PAD", i, "]");
  auto set = [&](int64_t id, const std::string& text, int64_t type) {
    if (id < 0 || id >= vocabulary) return;
    tokens[static_cast<size_t>(id)] = text;
    types[static_cast<size_t>(id)] = type;
  };
  const json vocab = model.value("vocab", json::object());
  for (const auto& [text, id] : vocab.items()) set(id.get<int64_t>(), text, kNormal);
  for (const json& added : tokenizer.value("added_tokens", json::array())) {
    set(added.value("id", int64_t{-1}), added.value("content", ""), added.value("special", false) ? kControl : kUserDefined);
  }
  std::vector<std::string> merges;
  for (const json& merge : model.value("merges", json::array())) {
    merges.push_back(merge.is_string() ? merge.get<std::string>()
                                       : absl::StrCat(merge.at(0).get<std::string>(), " ", merge.at(1).get<std::string>()));
  }
  GgufMetadata keys = {{"tokenizer.ggml.model", std::string("gpt2")}, {"tokenizer.ggml.pre", name},
                       {"tokenizer.ggml.tokens", std::move(tokens)}, {"tokenizer.ggml.token_type", std::move(types)},
                       {"tokenizer.ggml.merges", std::move(merges)}};
  for (auto [key, of] : {std::pair{"tokenizer.ggml.bos_token_id", "bos_token_id"}, {"tokenizer.ggml.eos_token_id", "eos_token_id"},
                         {"tokenizer.ggml.padding_token_id", "pad_token_id"}}) {
    json id = config.value(of, json());
    if (id.is_array() && !id.empty()) id = id[0];
    if (id.is_number_unsigned()) keys.emplace_back(key, id.get<int64_t>());
  }
  json tokenizer_config = json::object();
  std::error_code error;
  if (fs::exists(folder + "/tokenizer_config.json", error)) {
    REIN_ASSIGN_OR_RETURN(tokenizer_config, rein::json::ReadJsonFile(folder + "/tokenizer_config.json"));
  }
  const json add_bos = tokenizer_config.value("add_bos_token", json());
  if (add_bos.is_boolean()) keys.emplace_back("tokenizer.ggml.add_bos_token", add_bos.get<bool>());
  const std::string chat = ChatTemplate(folder, tokenizer_config);
  if (!chat.empty()) keys.emplace_back("tokenizer.chat_template", chat);
  return keys;
}

absl::StatusOr<bool> WriteTokenizer(const checkpoint::GgufFile& file, const std::string& folder) {
  const auto *tokens = Texts(file, "tokenizer.ggml.tokens"), *merges = Texts(file, "tokenizer.ggml.merges");
  auto pre = PreTokenizers().find(Text(file, "tokenizer.ggml.pre"));
  if (Text(file, "tokenizer.ggml.model") != "gpt2" || tokens == nullptr || merges == nullptr || pre == PreTokenizers().end()) return false;
  const GgufValue* types_key = file.Metadata("tokenizer.ggml.token_type");
  const auto* types = types_key == nullptr ? nullptr : std::get_if<std::vector<int64_t>>(types_key);
  if (types != nullptr && types->size() != tokens->size()) {
    return absl::InvalidArgumentError(absl::StrCat(file.path(), ": ", types->size(), " token types for ", tokens->size(), " tokens"));
  }
  json vocab = json::object(), added = json::array(), pairs = json::array();
  for (size_t i = 0; i < tokens->size(); ++i) {
    const int64_t type = types == nullptr ? kNormal : (*types)[i];
    if (type == kUnused) continue;
    if (type == kControl || type == kUserDefined) {
      added.push_back({{"id", i}, {"content", (*tokens)[i]}, {"single_word", false}, {"lstrip", false}, {"rstrip", false},
                       {"normalized", false}, {"special", type == kControl}});
    } else {
      vocab[(*tokens)[i]] = i;
    }
  }
  for (const std::string& merge : *merges) {
    const size_t space = merge.find(' ', 1);
    if (space == std::string::npos) return absl::InvalidArgumentError(absl::StrCat(file.path(), ": merge '", merge, "' is no pair"));
    pairs.push_back({merge.substr(0, space), merge.substr(space + 1)});
  }
  const json tokenizer = {{"version", "1.0"}, {"truncation", nullptr}, {"padding", nullptr}, {"added_tokens", added},
                          {"normalizer", pre->first == "qwen2" ? json{{"type", "NFC"}} : json()},
                          {"pre_tokenizer", pre->second}, {"post_processor", nullptr}, {"decoder", ByteLevel(true, true)},
                          {"model", {{"type", "BPE"}, {"dropout", nullptr}, {"unk_token", nullptr}, {"continuing_subword_prefix", nullptr},
                                     {"end_of_word_suffix", nullptr}, {"fuse_unk", false}, {"byte_fallback", false},
                                     {"ignore_merges", pre->first == "llama-bpe"}, {"vocab", vocab}, {"merges", pairs}}}};
  REIN_RETURN_IF_ERROR(checkpoint::WriteDurably(folder + "/tokenizer.json", tokenizer.dump() + "\n"));
  json config = {{"tokenizer_class", "PreTrainedTokenizerFast"}};
  for (auto [key, of] : {std::pair{"bos_token", "tokenizer.ggml.bos_token_id"}, {"eos_token", "tokenizer.ggml.eos_token_id"},
                         {"pad_token", "tokenizer.ggml.padding_token_id"}}) {
    const GgufValue* value = file.Metadata(of);
    const auto* id = value == nullptr ? nullptr : std::get_if<int64_t>(value);
    if (id != nullptr && *id >= 0 && *id < static_cast<int64_t>(tokens->size())) config[key] = (*tokens)[static_cast<size_t>(*id)];
  }
  const std::string chat = Text(file, "tokenizer.chat_template");
  if (!chat.empty()) config["chat_template"] = chat;
  REIN_RETURN_IF_ERROR(checkpoint::WriteDurably(folder + "/tokenizer_config.json", config.dump(2) + "\n"));
  return true;
}

}  // namespace rein::models

#include "common/text/model_text.h"

#include <algorithm>
#include <filesystem>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include <nlohmann/json.hpp>

#include "common/files/read_file.h"
#include "common/json/parse_json.h"
#include "common/status/status_macros.h"

namespace rein::text {
namespace {

constexpr uint64_t kMaxTokenizerBytes = 64 << 20;
constexpr uint64_t kMaxTemplateBytes = 1 << 20;
// Stands for what the assistant wrote; no template writes it by itself.
constexpr char kTurnMark[] = "rein1turn2mark3";
constexpr size_t kShownBytes = 60;

// The object in a JSON file, or an empty one when there is no such file.
absl::StatusOr<nlohmann::json> ReadObject(const std::string& path) {
  if (!std::filesystem::exists(path)) return nlohmann::json::object();
  REIN_ASSIGN_OR_RETURN(nlohmann::json value, json::ReadJsonFile(path));
  if (!value.is_object()) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": want a JSON object, got ", value.type_name()));
  }
  return value;
}

// A special token is written as "<s>" or as {"content": "<s>", ...}.
std::string TokenText(const nlohmann::json& value) {
  if (value.is_string()) return value.get<std::string>();
  if (value.is_object() && value.contains("content") && value["content"].is_string()) {
    return value["content"].get<std::string>();
  }
  return "";
}

absl::Status AddIds(const std::string& path, const nlohmann::json& value, std::set<uint32_t>& ids) {
  if (value.is_null()) return absl::OkStatus();
  for (const nlohmann::json& id : value.is_array() ? value : nlohmann::json::array({value})) {
    if (!id.is_number_unsigned() || id.get<uint64_t>() > UINT32_MAX) {
      return absl::InvalidArgumentError(absl::StrCat(
          path, ": eos_token_id: want a token id or a list of them, got ", value.dump()));
    }
    ids.insert(id.get<uint32_t>());
  }
  return absl::OkStatus();
}

// Some models mark the ends of a tool's call as special, and a special token reads as nothing; a call must be read.
std::string WithReadableCalls(std::string tokenizer) {
  if (tokenizer.find("\"<tool_call>\"") == std::string::npos) return tokenizer;
  nlohmann::json parsed = nlohmann::json::parse(tokenizer, nullptr, /*allow_exceptions=*/false);
  if (!parsed.is_object() || !parsed.contains("added_tokens") || !parsed["added_tokens"].is_array()) return tokenizer;
  bool changed = false;
  for (nlohmann::json& token : parsed["added_tokens"]) {
    const std::string text = TokenText(token);
    if ((text != "<tool_call>" && text != "</tool_call>") || !token.contains("special") || token["special"] != true) continue;
    token["special"] = false;
    changed = true;
  }
  return changed ? parsed.dump() : tokenizer;
}

// tokenizer_config.json holds one template, or a list of named ones of which "default" is meant.
absl::StatusOr<std::string> TemplateSource(const std::string& path, const nlohmann::json& value) {
  if (value.is_null()) return std::string();
  if (value.is_string()) return value.get<std::string>();
  std::vector<std::string> names;
  if (value.is_array()) {
    for (const nlohmann::json& entry : value) {
      std::string name = entry.is_object() ? entry.value("name", "") : "";
      if (name == "default" && entry.contains("template") && entry["template"].is_string()) {
        return entry["template"].get<std::string>();
      }
      names.push_back(name);
    }
  }
  return absl::InvalidArgumentError(absl::StrCat(
      path, ": chat_template: want a text, or a list with a template named default, got ",
      value.is_array() ? nlohmann::json(names).dump() : value.type_name()));
}

// INVALID_ARGUMENT when a message holds bytes that are not UTF-8.
absl::StatusOr<std::string> Dump(const nlohmann::ordered_json& variables) {
  try {
    return variables.dump();
  } catch (const nlohmann::ordered_json::type_error&) {
    return absl::InvalidArgumentError("a message holds bytes that are not UTF-8");
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<ModelText>> ModelText::Load(const std::string& folder) {
  if (!std::filesystem::is_directory(folder)) {
    return absl::NotFoundError(absl::StrCat(folder, ": no such folder"));
  }
  auto text = std::unique_ptr<ModelText>(new ModelText(folder));
  REIN_RETURN_IF_ERROR(text->LoadTokenizer());
  REIN_RETURN_IF_ERROR(text->LoadChatTemplate());
  REIN_RETURN_IF_ERROR(text->LoadStopTokens());
  return text;
}

absl::Status ModelText::LoadTokenizer() {
  std::string path = folder_ + "/tokenizer.json";
  if (!std::filesystem::exists(path)) return absl::OkStatus();
  REIN_ASSIGN_OR_RETURN(std::string json, files::ReadFile(path, kMaxTokenizerBytes));
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = Tokenizer::Create(WithReadableCalls(std::move(json)));
  if (!tokenizer.ok()) {
    return absl::InvalidArgumentError(absl::StrCat(folder_, "/", tokenizer.status().message()));
  }
  tokenizer_ = *std::move(tokenizer);
  return absl::OkStatus();
}

absl::Status ModelText::LoadChatTemplate() {
  if (!has_tokenizer()) return absl::OkStatus();
  std::string config_path = folder_ + "/tokenizer_config.json";
  REIN_ASSIGN_OR_RETURN(nlohmann::json config, ReadObject(config_path));
  REIN_ASSIGN_OR_RETURN(nlohmann::json map, ReadObject(folder_ + "/special_tokens_map.json"));
  nlohmann::json special = nlohmann::json::object();
  for (const char* name : {"bos_token", "eos_token", "pad_token", "unk_token"}) {
    std::string token = TokenText(config.value(name, nlohmann::json()));
    if (token.empty()) token = TokenText(map.value(name, nlohmann::json()));
    if (!token.empty()) special[name] = token;
  }
  tokenizer_config_ = special.dump();
  eos_token_ = special.value("eos_token", "");

  std::string path = folder_ + "/chat_template.jinja";
  std::string source;
  if (std::filesystem::exists(path)) {
    REIN_ASSIGN_OR_RETURN(source, files::ReadFile(path, kMaxTemplateBytes));
  } else {
    path = config_path;
    REIN_ASSIGN_OR_RETURN(source,
                          TemplateSource(path, config.value("chat_template", nlohmann::json())));
  }
  if (source.empty()) return absl::OkStatus();
  absl::StatusOr<std::unique_ptr<ChatTemplate>> chat_template = ChatTemplate::Create(source);
  if (!chat_template.ok()) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": ", chat_template.status().message()));
  }
  chat_template_ = *std::move(chat_template);
  return absl::OkStatus();
}

absl::Status ModelText::LoadStopTokens() {
  std::set<uint32_t> ids;
  for (const char* name : {"/generation_config.json", "/config.json"}) {
    REIN_ASSIGN_OR_RETURN(nlohmann::json config, ReadObject(folder_ + name));
    REIN_RETURN_IF_ERROR(
        AddIds(folder_ + name, config.value("eos_token_id", nlohmann::json()), ids));
    if (!ids.empty()) break;
  }
  if (!ids.empty()) eos_token_id_ = *ids.begin();
  if (has_tokenizer() && !eos_token_.empty()) {
    if (std::optional<uint32_t> id = tokenizer_->TokenId(eos_token_)) {
      ids.insert(*id);
      eos_token_id_ = id;
    }
  }
  stop_token_ids_.assign(ids.begin(), ids.end());
  return absl::OkStatus();
}

absl::Status ModelText::RequireTokenizer() const {
  if (has_tokenizer()) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat(folder_, " has no tokenizer.json: give token ids instead of text"));
}

absl::StatusOr<std::string> ModelText::RenderChat(const std::vector<ChatMessage>& messages,
                                                  bool add_generation_prompt,
                                                  const std::vector<std::string>& tools) const {
  REIN_RETURN_IF_ERROR(RequireTokenizer());
  if (!has_chat_template()) {
    return absl::FailedPreconditionError(
        absl::StrCat(folder_,
                     " has no chat template (chat_template.jinja, or chat_template in "
                     "tokenizer_config.json): give plain text with chat_template: false"));
  }
  nlohmann::ordered_json variables = nlohmann::ordered_json::parse(tokenizer_config_);
  variables["add_generation_prompt"] = add_generation_prompt;
  nlohmann::ordered_json& list = variables["messages"] = nlohmann::ordered_json::array();
  for (const ChatMessage& message : messages) {
    list.push_back({{"role", message.role}, {"content", message.content}});
    if (message.fields.empty()) continue;
    nlohmann::ordered_json fields = nlohmann::ordered_json::parse(message.fields, nullptr, /*allow_exceptions=*/false);
    if (!fields.is_object()) {
      return absl::InvalidArgumentError(
          absl::StrCat("the fields of a message are no JSON object: ", message.fields.substr(0, kShownBytes)));
    }
    list.back().update(fields);
  }
  for (const std::string& tool : tools) {
    nlohmann::ordered_json schema = nlohmann::ordered_json::parse(tool, nullptr, /*allow_exceptions=*/false);
    if (!schema.is_object()) {
      return absl::InvalidArgumentError(absl::StrCat("a tool's schema is no JSON object: ", tool.substr(0, 100)));
    }
    variables["tools"].push_back(std::move(schema));
  }
  REIN_ASSIGN_OR_RETURN(std::string json, Dump(variables));
  absl::StatusOr<std::string> text = chat_template_->Render(json);
  if (!text.ok()) {
    return absl::InvalidArgumentError(absl::StrCat(folder_, ": ", text.status().message()));
  }
  return text;
}

absl::StatusOr<std::vector<uint32_t>> ModelText::EncodePrompt(
    const std::vector<ChatMessage>& messages, const std::vector<std::string>& tools) const {
  REIN_ASSIGN_OR_RETURN(std::string text,
                        RenderChat(messages, /*add_generation_prompt=*/true, tools));
  return Encode(text, /*add_special_tokens=*/false);
}

absl::StatusOr<std::string> ModelText::RenderContinuation(
    const std::vector<ChatMessage>& messages, const std::vector<ChatMessage>& next,
    const std::vector<std::string>& tools) const {
  REIN_ASSIGN_OR_RETURN(std::string before,
                        RenderChat(messages, /*add_generation_prompt=*/false, tools));
  std::vector<ChatMessage> whole = messages;
  whole.push_back({"assistant", kTurnMark});
  whole.insert(whole.end(), next.begin(), next.end());
  REIN_ASSIGN_OR_RETURN(std::string after, RenderChat(whole, /*add_generation_prompt=*/true, tools));
  auto unfit = [&](const std::string& why) {
    return absl::InvalidArgumentError(absl::StrCat(
        folder_, ": the chat template cannot go on after a turn of the assistant: it ", why));
  };
  if (after.compare(0, before.size(), before) != 0) {
    size_t same = 0;
    while (same < before.size() && same < after.size() && before[same] == after[same]) ++same;
    return unfit(absl::StrCat("changes what stands before the turn, from '",
                              before.substr(same, kShownBytes), "' to '",
                              after.substr(same, kShownBytes), "'"));
  }
  const size_t turn = after.find(kTurnMark, before.size());
  if (turn == std::string::npos) return unfit("does not show the turn");
  const size_t end = turn + sizeof(kTurnMark) - 1;
  if (after.find(kTurnMark, end) != std::string::npos) return unfit("shows the turn twice");
  return after.substr(end);
}

absl::StatusOr<std::vector<uint32_t>> ModelText::EncodeContinuation(
    const std::vector<ChatMessage>& messages, const std::vector<ChatMessage>& next, uint32_t last,
    const std::vector<std::string>& tools) const {
  REIN_ASSIGN_OR_RETURN(std::string text, RenderContinuation(messages, next, tools));
  REIN_ASSIGN_OR_RETURN(std::vector<uint32_t> ids, Encode(text, /*add_special_tokens=*/false));
  const bool ended = std::find(stop_token_ids_.begin(), stop_token_ids_.end(), last) != stop_token_ids_.end();
  if (ended && !ids.empty() && ids.front() == last) ids.erase(ids.begin());
  return ids;
}

absl::StatusOr<bool> ModelText::ShowsTools() const {
  const std::vector<ChatMessage> messages = {{"user", "?"}};
  const std::string tool =
      R"({"type": "function", "function": {"name": "probe", "description": "A probe.",)"
      R"( "parameters": {"type": "object", "properties": {}}}})";
  REIN_ASSIGN_OR_RETURN(std::string with, RenderChat(messages, true, {tool}));
  return with.find("probe") != std::string::npos;
}

absl::StatusOr<std::vector<uint32_t>> ModelText::Encode(std::string_view text,
                                                        bool add_special_tokens) const {
  REIN_RETURN_IF_ERROR(RequireTokenizer());
  if (text.size() > kMaxTextBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("text of ", text.size(), " bytes, at most ", kMaxTextBytes, " are tokenised"));
  }
  return tokenizer_->Encode(text, add_special_tokens);
}

absl::StatusOr<std::string> ModelText::Decode(const std::vector<uint32_t>& ids) const {
  REIN_RETURN_IF_ERROR(RequireTokenizer());
  return tokenizer_->Decode(ids, /*skip_special_tokens=*/true);
}

uint32_t ModelText::vocabulary_size() const {
  return has_tokenizer() ? tokenizer_->vocabulary_size() : 0;
}

absl::Status CheckVocabulary(const ModelText& text, uint32_t model_vocabulary_size) {
  if (text.vocabulary_size() <= model_vocabulary_size) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat(
      "vocabulary mismatch: the tokenizer's largest id is ", text.vocabulary_size() - 1,
      ", but the model has rows for ids below ", model_vocabulary_size));
}

}  // namespace rein::text

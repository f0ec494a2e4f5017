#include "services/rollout/openai_tools.h"

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

#include "common/data/messages_json.h"
#include "common/status/status_macros.h"
#include "services/rollout/openai_fields.h"

namespace rein::services {
namespace {

using Json = nlohmann::ordered_json;

constexpr size_t kMaxNameBytes = 64;
// A function that no model has, to see what its template makes of one.
constexpr char kProbe[] = "rein1probe";

absl::Status CheckName(const Json& function, const char* where) {
  auto name = function.find("name");
  if (name == function.end() || !name->is_string()) return WrongField(where, "an object with a name", function);
  const auto& text = name->get_ref<const std::string&>();
  const bool known = text.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.") == std::string::npos;
  if (text.empty() || text.size() > kMaxNameBytes || !known) {
    return WrongField(absl::StrCat(where, ".name"), absl::StrCat("letters, digits, _ - and ., at most ", kMaxNameBytes), *name);
  }
  return absl::OkStatus();
}

absl::Status ReadTool(const Json& tool, OpenAiTools& tools) {
  if (!Says(tool, "type", "function") || !tool.contains("function") || !tool["function"].is_object()) {
    return WrongField("tools", R"({"type": "function", "function": {"name": ..., "parameters": {...}}})", tool);
  }
  const Json& function = tool["function"];
  REIN_RETURN_IF_ERROR(CheckName(function, "tools.function"));
  const Json parameters = function.value("parameters", Json());
  if (!parameters.is_null() && !parameters.is_object()) {
    return WrongField("tools.function.parameters", "a JSON schema, an object", parameters);
  }
  bool strict = false;
  REIN_RETURN_IF_ERROR(ReadField(function, "strict", "true or false", &Json::is_boolean, strict));
  if (strict) {
    const auto schema = nlohmann::json::parse((parameters.is_null() ? Json::object() : parameters).dump());
    absl::StatusOr<json::JsonSchema> compiled = json::JsonSchema::Compile(schema);
    if (!compiled.ok()) {
      return absl::InvalidArgumentError(absl::StrCat(
          "tools.function.parameters: a strict function's are checked, and these cannot be: ", std::string(compiled.status().message())));
    }
    tools.strict.emplace(function["name"].get<std::string>(), *std::move(compiled));
  }
  tools.schemas.push_back(tool.dump());
  return absl::OkStatus();
}

// True: none.
absl::StatusOr<bool> ChoosesNone(const Json& body) {
  auto choice = body.find("tool_choice");
  if (choice == body.end() || choice->is_null() || *choice == "auto") return false;
  if (*choice == "none") return true;
  return WrongField("tool_choice", R"("auto" or "none" (a policy's words are its own here: no call is forced))", *choice);
}

absl::StatusOr<v1::ToolFormat> NamedFormat(const Json& body) {
  std::string name;
  REIN_RETURN_IF_ERROR(ReadField(body, "tool_format", "a text", &Json::is_string, name));
  if (name.empty()) return v1::TOOL_FORMAT_UNSPECIFIED;
  if (name == "hermes") return v1::TOOL_FORMAT_HERMES;
  if (name == "llama") return v1::TOOL_FORMAT_LLAMA;
  return WrongField("tool_format", "hermes or llama", name);
}

// How this model's own template writes a call.
absl::StatusOr<v1::ToolFormat> FormatOf(const text::ModelText& text) {
  const std::string tool = absl::StrCat(R"({"type": "function", "function": {"name": ")", kProbe,
                                        R"(", "description": "", "parameters": {"type": "object", "properties": {}}}})");
  const std::string call = absl::StrCat(R"({"tool_calls": [{"type": "function", "id": "c", "function": {"name": ")", kProbe,
                                        R"(", "arguments": {}}}]})");
  absl::StatusOr<std::string> called = text.RenderChat({{"user", "?"}, {"assistant", "", call}}, false, {tool});
  absl::StatusOr<std::string> offered = text.RenderChat({{"user", "?"}}, true, {tool});
  for (const absl::StatusOr<std::string>& shown : {called, offered}) {
    if (!shown.ok()) continue;
    if (absl::StrContains(*shown, "<tool_call>")) return v1::TOOL_FORMAT_HERMES;
    if (absl::StrContains(*shown, absl::StrCat(R"({"name": ")", kProbe, R"(", "parameters")"))) return v1::TOOL_FORMAT_LLAMA;
  }
  return absl::InvalidArgumentError(
      "tools: the model's chat template writes calls in no form that is read here; tool_format: hermes or llama says which it is");
}

absl::StatusOr<std::string> ContentOf(const Json& message) {
  auto content = message.find("content");
  if (content == message.end() || content->is_null()) return "";
  if (content->is_string()) return content->get<std::string>();
  std::string joined;
  if (!content->is_array()) return WrongField("messages.content", "a text", *content);
  for (const Json& part : *content) {
    if (!Says(part, "type", "text") || !part.contains("text") || !part["text"].is_string()) {
      return WrongField("messages.content", "parts of type text: this model reads nothing else", part);
    }
    joined += part["text"].get<std::string>();
  }
  return joined;
}

// A call with its arguments as an object.
absl::StatusOr<Json> CallOf(const Json& call) {
  const bool typed = call.is_object() && call.contains("type");
  if ((typed && !Says(call, "type", "function")) || !call.contains("function") || !call["function"].is_object()) {
    return WrongField("messages.tool_calls", R"({"id": ..., "type": "function", "function": {"name": ..., "arguments": ...}})", call);
  }
  REIN_RETURN_IF_ERROR(CheckName(call["function"], "messages.tool_calls.function"));
  Json read = call;
  if (!read["function"].contains("arguments") || !data::ReadArguments(read["function"]).ok()) {
    return WrongField("messages.tool_calls.function.arguments", "a JSON object in a text", call["function"].value("arguments", Json()));
  }
  return read;
}

}  // namespace

bool OpenAiTools::Accepts(const rollout::ToolCall& call) const {
  auto found = strict.find(call.name);
  return found == strict.end() || found->second.Problem(nlohmann::json::parse(call.arguments.dump())).empty();
}

absl::StatusOr<std::optional<OpenAiTools>> ReadTools(const Json& body, const text::ModelText& text) {
  OpenAiTools tools;
  REIN_ASSIGN_OR_RETURN(tools.format, NamedFormat(body));
  REIN_RETURN_IF_ERROR(ReadField(body, "parallel_tool_calls", "true or false", &Json::is_boolean, tools.parallel));
  REIN_ASSIGN_OR_RETURN(const bool none, ChoosesNone(body));
  auto found = body.find("tools");
  const bool asked = found != body.end() && !found->is_null();
  if (asked && !found->is_array()) return WrongField("tools", "a list", *found);
  if (!asked || found->empty()) return std::nullopt;
  for (const Json& tool : *found) REIN_RETURN_IF_ERROR(ReadTool(tool, tools));
  if (none) return std::nullopt;
  REIN_ASSIGN_OR_RETURN(const bool shown, text.ShowsTools());
  if (!shown) return absl::InvalidArgumentError("tools: the model's chat template does not show tools to the model");
  if (tools.format == v1::TOOL_FORMAT_UNSPECIFIED) {
    REIN_ASSIGN_OR_RETURN(tools.format, FormatOf(text));
  }
  return tools;
}

absl::StatusOr<std::vector<text::ChatMessage>> ReadMessages(const Json& body) {
  auto messages = body.find("messages");
  if (messages == body.end() || !messages->is_array() || messages->empty()) {
    return absl::InvalidArgumentError("messages: wants a list of at least one {role, content}");
  }
  std::vector<text::ChatMessage> chat;
  for (const Json& message : *messages) {
    if (!message.is_object() || !message.contains("role") || !message["role"].is_string()) {
      return WrongField("messages", "objects with a role", message);
    }
    Json fields = Json::object();
    for (const char* key : {"name", "tool_call_id"}) {
      std::string text;
      REIN_RETURN_IF_ERROR(ReadField(message, key, "a text", &Json::is_string, text));
      if (!text.empty()) fields[key] = text;
    }
    if (auto calls = message.find("tool_calls"); calls != message.end() && !calls->is_null() && !calls->empty()) {
      if (!calls->is_array()) return WrongField("messages.tool_calls", "a list", *calls);
      if (message["role"] != "assistant") return WrongField("messages.tool_calls", "a message of the assistant", message["role"]);
      for (const Json& call : *calls) {
        REIN_ASSIGN_OR_RETURN(Json read, CallOf(call));
        fields["tool_calls"].push_back(std::move(read));
      }
    }
    REIN_ASSIGN_OR_RETURN(std::string content, ContentOf(message));
    chat.push_back({message["role"].get<std::string>(), std::move(content), fields.empty() ? "" : fields.dump()});
  }
  return chat;
}

absl::Status CheckCallsAreShown(const std::vector<text::ChatMessage>& messages, const std::string& rendered) {
  if (data::HiddenCall(messages, rendered).empty()) return absl::OkStatus();
  return absl::InvalidArgumentError("messages.tool_calls: the model's chat template does not show calls to the model");
}

}  // namespace rein::services

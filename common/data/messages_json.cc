#include "common/data/messages_json.h"

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

#include "common/json/parse_json.h"
#include "common/status/status_macros.h"

namespace rein::data {
namespace {

using Json = nlohmann::ordered_json;

// Content is a text, or a list of parts of which all are text.
absl::StatusOr<std::string> ContentText(const Json& content) {
  if (content.is_string()) return content.get<std::string>();
  std::string text;
  for (const Json& part : content) {
    bool is_text =
        content.is_array() && part.is_object() && part.contains("text") && part["text"].is_string();
    if (!is_text) return absl::InvalidArgumentError("content is not text");
    text += part["text"].get<std::string>();
  }
  if (!content.is_array()) {
    return absl::InvalidArgumentError(
        absl::StrCat("content: want text, got ", content.type_name()));
  }
  return text;
}

// Calls as templates take them.
absl::Status ReadCalls(Json& calls) {
  if (!calls.is_array()) return absl::InvalidArgumentError(absl::StrCat("tool_calls: want a list, got ", calls.type_name()));
  for (Json& call : calls) {
    if (FunctionName(call).empty()) {
      return absl::InvalidArgumentError(absl::StrCat(
          "tool_calls: want {\"function\": {\"name\": ..., \"arguments\": ...}}, got ", call.dump().substr(0, 100)));
    }
    REIN_RETURN_IF_ERROR(ReadArguments(call.contains("function") ? call["function"] : call));
  }
  return absl::OkStatus();
}

// What `entry` holds beside role and content.
absl::StatusOr<Json> FieldsOf(const Json& entry) {
  Json fields = Json::object();
  for (const auto& [name, value] : entry.items()) {
    const bool known = name == "role" || name == "content" || name == "from" || name == "value" || name == "weight";
    const bool empty_calls = name == "tool_calls" && value.is_array() && value.empty();
    if (!known && !value.is_null() && !empty_calls) fields[name] = value;
  }
  if (auto calls = fields.find("tool_calls"); calls != fields.end()) REIN_RETURN_IF_ERROR(ReadCalls(*calls));
  return fields;
}

absl::StatusOr<double> WeightOf(const Json& entry) {
  auto weight = entry.find("weight");
  if (weight == entry.end() || weight->is_null()) return 1.0;
  if (weight->is_number() && weight->get<double>() >= 0 && weight->get<double>() <= 1e6) return weight->get<double>();
  return absl::InvalidArgumentError(absl::StrCat("weight is ", weight->dump().substr(0, 100), ", want a number from 0 to 1e6"));
}

// Empty: a message of `role` may follow `before`.
std::string OrderProblem(const std::string& role, const std::vector<text::ChatMessage>& before) {
  if (role == "system" && !before.empty()) return "a system message, which wants to be the first";
  const std::string last = before.empty() ? "" : before.back().role;
  if (role != "tool" || last == "assistant" || last == "tool") return "";
  return absl::StrCat("the result of a tool, which wants a turn of the assistant before it, not ",
                      last.empty() ? "the beginning" : absl::StrCat("a message of ", last));
}

// ShareGPT's names of roles, in the words of chat templates.
std::string RoleOf(const std::string& role) {
  if (role == "human") return "user";
  return role == "gpt" ? "assistant" : role;
}

}  // namespace

absl::StatusOr<std::vector<text::ChatMessage>> MessagesFromJson(const std::string& column,
                                                                const Json& value) {
  if (!value.is_array() || value.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("column \"", column, "\": want a text or a list of {role, content}, got ",
                     value.is_array() ? "an empty list" : value.type_name()));
  }
  std::vector<text::ChatMessage> messages;
  for (const Json& entry : value) {
    std::string where =
        absl::StrCat("column \"", column, "\", message ", messages.size() + 1, ": ");
    const bool sharegpt = entry.is_object() && entry.contains("from") && !entry.contains("role");
    const char *role = sharegpt ? "from" : "role", *text = sharegpt ? "value" : "content";
    if (!entry.is_object() || !entry.contains(role) || !entry[role].is_string() ||
        (!entry.contains(text) && !entry.contains("tool_calls"))) {
      return absl::InvalidArgumentError(absl::StrCat(where, "want {role, content}"));
    }
    auto in_message = [&](const absl::Status& status) {
      return absl::InvalidArgumentError(absl::StrCat(where, status.message()));
    };
    absl::StatusOr<Json> fields = FieldsOf(entry);
    if (!fields.ok()) return in_message(fields.status());
    const bool silent = fields->contains("tool_calls") && (!entry.contains(text) || entry[text].is_null());
    absl::StatusOr<std::string> content = silent ? std::string() : ContentText(entry[text]);
    if (!content.ok()) return in_message(content.status());
    absl::StatusOr<double> weight = WeightOf(entry);
    if (!weight.ok()) return in_message(weight.status());
    const std::string name = RoleOf(entry[role].get<std::string>());
    if (std::string problem = OrderProblem(name, messages); !problem.empty()) {
      return absl::InvalidArgumentError(absl::StrCat(where, problem));
    }
    messages.push_back({name, *std::move(content), fields->empty() ? "" : fields->dump(), *weight});
  }
  return messages;
}

absl::StatusOr<std::vector<std::string>> ToolsFromJson(const std::string& column, const Json& value) {
  Json list = value;
  if (value.is_string()) {
    absl::StatusOr<Json> parsed = json::ParseOrderedJson(value.get_ref<const std::string&>());
    if (!parsed.ok()) return absl::InvalidArgumentError(absl::StrCat("column \"", column, "\": ", parsed.status().message()));
    list = *std::move(parsed);
  }
  std::vector<std::string> tools;
  if (list.is_null()) return tools;
  if (!list.is_array()) {
    return absl::InvalidArgumentError(absl::StrCat("column \"", column, "\": want a list of schemas, got ", list.type_name()));
  }
  for (const Json& tool : list) {
    if (FunctionName(tool).empty()) {
      return absl::InvalidArgumentError(absl::StrCat("column \"", column, "\": want schemas {\"type\": \"function\", \"function\": "
                                                     "{\"name\": ...}}, got ", tool.dump().substr(0, 100)));
    }
    tools.push_back(tool.dump());
  }
  return tools;
}

std::string FunctionName(const Json& tool) {
  if (!tool.is_object()) return "";
  auto nested = tool.find("function");
  const Json& function = nested == tool.end() ? tool : *nested;
  if (!function.is_object() || !function.contains("name") || !function["name"].is_string()) return "";
  return function["name"].get<std::string>();
}

std::string HiddenCall(const std::vector<text::ChatMessage>& messages, const std::string& rendered) {
  for (const text::ChatMessage& message : messages) {
    if (message.fields.empty()) continue;
    for (const Json& call : Json::parse(message.fields).value("tool_calls", Json::array())) {
      if (std::string name = FunctionName(call); !absl::StrContains(rendered, name)) return name;
    }
  }
  return "";
}

absl::Status ReadArguments(Json& function) {
  auto arguments = function.find("arguments");
  if (arguments == function.end() || arguments->is_null()) {
    function["arguments"] = Json::object();
    return absl::OkStatus();
  }
  if (arguments->is_string()) {
    const std::string text = arguments->get<std::string>();
    absl::StatusOr<Json> read = text.empty() ? Json::object() : json::ParseOrderedJson(text);
    if (read.ok() && read->is_object()) *arguments = *std::move(read);
  }
  if (arguments->is_object()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("arguments of a call: want a JSON object, or one in a text, got ", arguments->dump().substr(0, 100)));
}

}  // namespace rein::data

#include "common/data/messages_json.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace rein::data {
namespace {

using Json = nlohmann::json;

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
        !entry.contains(text)) {
      return absl::InvalidArgumentError(absl::StrCat(where, "want {role, content}"));
    }
    absl::StatusOr<std::string> content = ContentText(entry[text]);
    if (!content.ok()) {
      return absl::InvalidArgumentError(absl::StrCat(where, content.status().message()));
    }
    messages.push_back({RoleOf(entry[role].get<std::string>()), *std::move(content)});
  }
  return messages;
}

}  // namespace rein::data

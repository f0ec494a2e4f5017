#include "rollout/environments/tool_calls.h"

#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

#include "common/json/parse_json.h"

namespace rein::rollout {
namespace {

constexpr std::string_view kOpen = "<tool_call>", kClose = "</tool_call>", kPythonTag = "<|python_tag|>";

std::string_view Stripped(std::string_view text) {
  const size_t begin = text.find_first_not_of(" \t\r\n");
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(" \t\r\n") - begin + 1);
}

ToolCall Unreadable(std::string why) { return {.error = std::move(why)}; }

ToolCall FromJson(std::string_view text, std::initializer_list<const char*> keys) {
  absl::StatusOr<nlohmann::json> json = json::ParseJson(std::string(text));
  if (!json.ok()) return Unreadable(absl::StrCat("the call is no JSON: ", std::string(json.status().message())));
  if (!json->is_object() || !json->contains("name") || !(*json)["name"].is_string()) {
    return Unreadable("the call wants a JSON object with a \"name\"");
  }
  ToolCall call{.name = (*json)["name"].get<std::string>(), .arguments = nlohmann::json::object()};
  for (const char* key : keys) {
    if (!json->contains(key)) continue;
    call.arguments = (*json)[key];
    // Some models write the object once more as text, as OpenAI's API has it.
    if (call.arguments.is_string()) {
      absl::StatusOr<nlohmann::json> inner = json::ParseJson(call.arguments.get<std::string>());
      if (inner.ok()) call.arguments = *std::move(inner);
    }
    if (!call.arguments.is_object()) return Unreadable(absl::StrCat("\"", key, "\" is no JSON object"));
    break;
  }
  return call;
}

std::vector<ToolCall> Hermes(std::string_view text) {
  std::vector<ToolCall> calls;
  for (size_t at = text.find(kOpen); at != std::string_view::npos; at = text.find(kOpen, at)) {
    at += kOpen.size();
    const size_t end = text.find(kClose, at);
    if (end == std::string_view::npos) {
      calls.push_back(Unreadable("</tool_call> is missing"));
      break;
    }
    calls.push_back(FromJson(Stripped(text.substr(at, end - at)), {"arguments", "parameters"}));
    at = end + kClose.size();
  }
  return calls;
}

// The end of the JSON object that `text` begins with; npos: it does not end.
size_t EndOfObject(std::string_view text) {
  int depth = 0;
  bool quoted = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (quoted) {
      if (c == '\\') ++i;
      quoted = c != '"' || i >= text.size();
      continue;
    }
    quoted = c == '"';
    depth += c == '{' ? 1 : c == '}' ? -1 : 0;
    if (depth == 0) return i + 1;
  }
  return std::string_view::npos;
}

std::vector<ToolCall> Llama(std::string_view text) {
  text = Stripped(text);
  if (text.substr(0, kPythonTag.size()) == kPythonTag) text = Stripped(text.substr(kPythonTag.size()));
  std::vector<ToolCall> calls;
  while (!text.empty() && text.front() == '{') {
    const size_t end = EndOfObject(text);
    if (end == std::string_view::npos) {
      calls.push_back(Unreadable("the JSON object does not end"));
      break;
    }
    calls.push_back(FromJson(text.substr(0, end), {"parameters", "arguments"}));
    text = Stripped(text.substr(end));
    if (text.empty()) break;
    if (text.front() != ';') {
      calls.push_back(Unreadable("text follows the call: several calls are separated by ;"));
      break;
    }
    text = Stripped(text.substr(1));
  }
  return calls;
}

}  // namespace

std::vector<ToolCall> ParseToolCalls(v1::ToolFormat format, std::string_view text) {
  return format == v1::TOOL_FORMAT_LLAMA ? Llama(text) : Hermes(text);
}

}  // namespace rein::rollout

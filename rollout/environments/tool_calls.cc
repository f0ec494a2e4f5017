#include "rollout/environments/tool_calls.h"

#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

#include "common/json/parse_json.h"

namespace rein::rollout {
namespace {

constexpr std::string_view kSpace = " \t\r\n";
constexpr std::string_view kOpen = "<tool_call>", kClose = "</tool_call>", kPythonTag = "<|python_tag|>";

std::string_view Stripped(std::string_view text) {
  const size_t begin = text.find_first_not_of(kSpace);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(kSpace) - begin + 1);
}

ToolCall Unreadable(std::string why) { return {.error = std::move(why)}; }

ToolCall FromJson(std::string_view text, std::initializer_list<const char*> keys) {
  absl::StatusOr<nlohmann::json> json = json::ParseJson(std::string(text));
  if (!json.ok()) return Unreadable(absl::StrCat("the call is no JSON: ", std::string(json.status().message())));
  if (!json->is_object() || !json->contains("name") || !(*json)["name"].is_string()) {
    return Unreadable("the call wants a JSON object with a \"name\"");
  }
  ToolCall call{.name = (*json)["name"].get<std::string>(), .arguments = nlohmann::ordered_json::object()};
  for (const char* key : keys) {
    if (!json->contains(key)) continue;
    call.arguments = nlohmann::ordered_json::parse(text)[key];
    // Some models write the object once more as text, as OpenAI's API has it.
    if (call.arguments.is_string()) {
      const std::string inner = call.arguments.get<std::string>();
      if (json::ParseJson(inner).ok()) call.arguments = nlohmann::ordered_json::parse(inner);
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
    const bool another = text.front() == ';';
    if (another) text = Stripped(text.substr(1));
    if (!another || (!text.empty() && text.front() != '{')) {
      calls.push_back(Unreadable("text follows the call: several calls are separated by ;"));
      break;
    }
  }
  return calls;
}

// Whether `text` may yet begin a turn of calls in Llama's form.
bool MayBeLlama(std::string_view text) {
  text = text.substr(std::min(text.find_first_not_of(kSpace), text.size()));
  return text.empty() || text.front() == '{' || text.substr(0, kPythonTag.size()) == kPythonTag.substr(0, text.size());
}

}  // namespace

std::vector<ToolCall> ParseToolCalls(v1::ToolFormat format, std::string_view text) {
  return format == v1::TOOL_FORMAT_LLAMA ? Llama(text) : Hermes(text);
}

ToolCallReader::Part ToolCallReader::Append(std::string_view piece) {
  Part part;
  held_ += piece;
  if (format_ == v1::TOOL_FORMAT_HERMES) {
    ReadHermes(part);
  } else if (said_ || !MayBeLlama(held_)) {
    Say(std::exchange(held_, ""), part);
  }
  return part;
}

ToolCallReader::Part ToolCallReader::Finish() {
  Part part;
  const std::string rest = std::exchange(held_, "");
  if (format_ == v1::TOOL_FORMAT_LLAMA && !said_) {
    ReadOrSay(rest, part);
  } else {
    Say(rest, part);  // a call that was begun and has no end
  }
  if (!called_) part.content += std::exchange(space_, "");
  return part;
}

void ToolCallReader::ReadHermes(Part& part) {
  for (;;) {
    const size_t open = held_.find(kOpen);
    if (open == std::string::npos) break;
    Say(held_.substr(0, open), part);
    held_.erase(0, open);
    const size_t close = held_.find(kClose);
    if (close == std::string::npos) return;
    const std::string call = held_.substr(0, close + kClose.size());
    held_.erase(0, call.size());
    ReadOrSay(call, part);
  }
  // What may be the beginning of a call waits for what follows.
  size_t beginning = std::min(kOpen.size() - 1, held_.size());
  while (held_.compare(held_.size() - beginning, beginning, kOpen, 0, beginning) != 0) --beginning;
  Say(held_.substr(0, held_.size() - beginning), part);
  held_.erase(0, held_.size() - beginning);
}

void ToolCallReader::ReadOrSay(std::string_view text, Part& part) {
  std::vector<ToolCall> calls = ParseToolCalls(format_, text);
  for (const ToolCall& call : calls) {
    if (!call.error.empty() || (accepts_ && !accepts_(call))) return Say(text, part);
  }
  if (calls.empty()) return Say(text, part);
  called_ = true;
  for (ToolCall& call : calls) part.calls.push_back(std::move(call));
}

void ToolCallReader::Say(std::string_view text, Part& part) {
  const size_t last = text.find_last_not_of(kSpace);
  if (last == std::string_view::npos) {
    space_ += text;
    return;
  }
  if (called_ && !said_) {  // nothing but calls so far
    space_.clear();
    text.remove_prefix(text.find_first_not_of(kSpace));
  }
  const size_t end = text.find_last_not_of(kSpace) + 1;
  part.content += std::exchange(space_, "");
  part.content += text.substr(0, end);
  space_ = text.substr(end);
  said_ = true;
}

}  // namespace rein::rollout

#include "common/json/parse_json.h"

#include <algorithm>
#include <unordered_set>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

#include "common/files/read_file.h"
#include "common/status/status_macros.h"

namespace rein::json {
namespace {

// Deepest nesting of arrays and objects, found without building anything.
int Depth(std::string_view text) {
  int depth = 0;
  int deepest = 0;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    char c = text[i];
    if (in_string) {
      if (c == '\\') ++i;
      if (c == '"') in_string = false;
    } else if (c == '"') {
      in_string = true;
    } else if (c == '[' || c == '{') {
      deepest = std::max(deepest, ++depth);
    } else if (c == ']' || c == '}') {
      --depth;
    }
  }
  return deepest;
}

// Cuts the exception's class and number off.
std::string Reason(const nlohmann::json::parse_error& error) {
  std::string text = error.what();
  size_t start = text.find("] ");
  return start == std::string::npos ? text : text.substr(start + 2);
}

template <typename Json>
absl::StatusOr<Json> Parse(std::string_view text, const JsonLimits& limits) {
  if (text.size() > limits.max_bytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("JSON of ", text.size(), " bytes, at most ", limits.max_bytes, " are read"));
  }
  if (int depth = Depth(text); depth > limits.max_depth) {
    return absl::InvalidArgumentError(
        absl::StrCat("JSON nested ", depth, " deep, at most ", limits.max_depth, " are read"));
  }
  std::vector<std::unordered_set<std::string>> open_objects;
  std::string duplicate;
  auto check = [&](int, typename Json::parse_event_t event, Json& value) {
    using Event = typename Json::parse_event_t;
    if (event == Event::object_start) open_objects.emplace_back();
    if (event == Event::object_end) open_objects.pop_back();
    if (event == Event::key) {
      const std::string& key = value.template get_ref<const std::string&>();
      if (!open_objects.back().insert(key).second && duplicate.empty()) duplicate = key;
    }
    return true;
  };
  try {
    Json value = Json::parse(text, check);
    if (!duplicate.empty()) {
      return absl::InvalidArgumentError(
          absl::StrCat("key \"", duplicate, "\" stands twice in one JSON object"));
    }
    return value;
  } catch (const nlohmann::json::parse_error& error) {
    return absl::InvalidArgumentError(Reason(error));
  }
}

}  // namespace

absl::StatusOr<nlohmann::json> ParseJson(std::string_view text, const JsonLimits& limits) {
  return Parse<nlohmann::json>(text, limits);
}

absl::StatusOr<nlohmann::ordered_json> ParseOrderedJson(std::string_view text, const JsonLimits& limits) {
  return Parse<nlohmann::ordered_json>(text, limits);
}

absl::StatusOr<nlohmann::json> ReadJsonFile(const std::string& path, const JsonLimits& limits) {
  REIN_ASSIGN_OR_RETURN(std::string text, files::ReadFile(path, limits.max_bytes));
  absl::StatusOr<nlohmann::json> value = ParseJson(text, limits);
  if (!value.ok()) {
    return absl::Status(value.status().code(), absl::StrCat(path, ": ", value.status().message()));
  }
  return value;
}

}  // namespace rein::json

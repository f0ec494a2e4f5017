// Fields of OpenAI's requests, read with errors that name them. Pure.

#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include <nlohmann/json.hpp>

namespace rein::services {

// INVALID_ARGUMENT: "KEY: wants WANTED, got VALUE".
inline absl::Status WrongField(const std::string& key, const std::string& wanted, const nlohmann::ordered_json& value) {
  using Json = nlohmann::ordered_json;
  return absl::InvalidArgumentError(absl::StrCat(
      key, ": wants ", wanted, ", got ", value.dump(-1, ' ', false, Json::error_handler_t::replace).substr(0, 60)));
}

// Leaves `value` alone where the key is absent or null.
template <typename Value>
absl::Status ReadField(const nlohmann::ordered_json& body, const char* key, const char* wanted,
                       bool (nlohmann::ordered_json::*is)() const noexcept, Value& value) {
  auto found = body.find(key);
  if (found == body.end() || found->is_null()) return absl::OkStatus();
  if (!((*found).*is)()) return WrongField(key, wanted, *found);
  value = found->template get<Value>();
  return absl::OkStatus();
}

// Whether `object` is one whose `key` is that text.
inline bool Says(const nlohmann::ordered_json& object, const char* key, const char* text) {
  return object.is_object() && object.contains(key) && object[key] == text;
}

}  // namespace rein::services

// ParseJson reads JSON that others wrote: within limits, and strictly.
//
//   REIN_ASSIGN_OR_RETURN(nlohmann::json config, ReadJsonFile(folder + "/config.json", {}));
//
// A duplicate key, invalid UTF-8, text after the value, too many bytes or too deep nesting is
// INVALID_ARGUMENT; the message says where.

#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include <nlohmann/json.hpp>

namespace rein::json {

struct JsonLimits {
  uint64_t max_bytes = 16 << 20;
  int max_depth = 64;
};

absl::StatusOr<nlohmann::json> ParseJson(std::string_view text, const JsonLimits& limits = {});
// The same with keys in the order of the text.
absl::StatusOr<nlohmann::ordered_json> ParseOrderedJson(std::string_view text, const JsonLimits& limits = {});

// As ParseJson; messages open with the path. NOT_FOUND when there is no such file.
absl::StatusOr<nlohmann::json> ReadJsonFile(const std::string& path, const JsonLimits& limits = {});

}  // namespace rein::json

// What a model folder holds, for people: its structure and size, its faults, and how two differ.
//
// Reports are JSON objects. Nothing is loaded into an arena; files are read where they lie.

#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "absl/status/statusor.h"

namespace rein::models {

// Every family: architecture and model_type.
nlohmann::ordered_json ListFamilies();

// Structure, parameters (of all, and of those that a token meets), bytes, files; from a folder or its config.json.
absl::StatusOr<nlohmann::ordered_json> InspectFolder(const std::string& path);

// {"tensors", "bytes", "digest"} of a folder whose tensors all fit its config.json and are finite; else
// INVALID_ARGUMENT names those that do not, or are not. The digest is of names, dtypes, shapes and bytes.
absl::StatusOr<nlohmann::ordered_json> VerifyFolder(const std::string& folder);

// {"equal", "only_in_first", "only_in_second", "different": [{"tensor", ...}]}; a tensor that differs in bytes alone
// with its largest difference and the length of the difference relative to its own.
absl::StatusOr<nlohmann::ordered_json> DiffFolders(const std::string& first, const std::string& second);

}  // namespace rein::models

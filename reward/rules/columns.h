// What a prompt's dataset columns say.

#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include <google/protobuf/struct.pb.h>
#include <nlohmann/json.hpp>

namespace rein::reward {

// The column at `path`, whose dots lead into objects; nullptr when there is none.
const google::protobuf::Value* FindColumn(const google::protobuf::Struct& columns,
                                          absl::string_view path);

// A text as it is; others as JSON writes them, whole numbers without a point.
std::string ColumnText(const google::protobuf::Value& value);

// The value; a text is read as JSON, INVALID_ARGUMENT when it is none.
absl::StatusOr<nlohmann::json> ColumnJson(const google::protobuf::Value& value);

}  // namespace rein::reward

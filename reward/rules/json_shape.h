// JsonShape: 1 when a completion is JSON that fits a schema (common/json/json_schema.h).

#pragma once

#include <optional>
#include <string>

#include "absl/status/statusor.h"

#include "common/json/json_schema.h"
#include "rein/v1/reward.pb.h"
#include "reward/rules/rule.h"

namespace rein::reward {

struct JsonShapeOptions {
  std::optional<json::JsonSchema> schema;  // absent, without a column: any JSON value
  std::string column;                      // of each prompt's own schema
  bool fenced = false;
};

// The note of a 0 tells what does not fit. INVALID_ARGUMENT for a prompt whose column holds no
// schema.
absl::StatusOr<Verdict> JsonShape(const v1::RewardItem& item, const JsonShapeOptions& options);

}  // namespace rein::reward

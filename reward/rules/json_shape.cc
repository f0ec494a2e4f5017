#include "reward/rules/json_shape.h"

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"

#include "common/json/parse_json.h"
#include "common/status/status_macros.h"
#include "reward/rules/columns.h"
#include "reward/rules/fenced_block.h"

namespace rein::reward {
namespace {

absl::StatusOr<json::JsonSchema> SchemaOf(const v1::RewardItem& item, const std::string& column) {
  const google::protobuf::Value* value = FindColumn(item.columns(), column);
  if (value == nullptr)
    return absl::InvalidArgumentError(absl::StrCat("the prompt has no column ", column));
  absl::StatusOr<nlohmann::json> schema = ColumnJson(*value);
  absl::StatusOr<json::JsonSchema> compiled =
      schema.ok() ? json::JsonSchema::Compile(*schema)
                  : absl::StatusOr<json::JsonSchema>(schema.status());
  if (compiled.ok()) return compiled;
  return absl::InvalidArgumentError(
      absl::StrCat("column ", column, ": ", std::string(compiled.status().message())));
}

}  // namespace

absl::StatusOr<Verdict> JsonShape(const v1::RewardItem& item, const JsonShapeOptions& options) {
  std::optional<json::JsonSchema> schema = options.schema;
  if (!options.column.empty()) {
    REIN_ASSIGN_OR_RETURN(schema, SchemaOf(item, options.column));
  }
  absl::string_view text = item.completion().text();
  if (options.fenced) text = LastFencedBlock(text).value_or(text);
  text = absl::StripAsciiWhitespace(text);
  absl::StatusOr<nlohmann::json> value = json::ParseJson({text.data(), text.size()});
  if (!value.ok())
    return Verdict(0, absl::StrCat("no JSON: ", std::string(value.status().message())));
  const std::string problem = schema.has_value() ? schema->Problem(*value) : "";
  return Verdict(problem.empty() ? 1 : 0, problem);
}

}  // namespace rein::reward

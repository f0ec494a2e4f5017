// JsonSchema checks JSON values against a schema: the validating keywords of JSON Schema 2020-12
// that need neither references nor annotations.
//
//   REIN_ASSIGN_OR_RETURN(JsonSchema schema, JsonSchema::Compile(*ParseJson(text)));
//   std::string problem = schema.Problem(value);      // "" when it fits
//
// Known: type enum const properties required additionalProperties patternProperties minProperties
// maxProperties items prefixItems minItems maxItems uniqueItems contains minLength maxLength
// pattern (RE2) minimum maximum exclusiveMinimum exclusiveMaximum multipleOf allOf anyOf oneOf not.
// Others that would constrain ($ref, if, dependentRequired, ...) are refused, so that no schema is
// checked by half; title, description and the like are ignored. Immutable, thread-safe.

#pragma once

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include <nlohmann/json.hpp>
#include <re2/re2.h>

namespace rein::json {

class JsonSchema {
 public:
  // INVALID_ARGUMENT names the place as a JSON pointer, such as /properties/age/minimum.
  static absl::StatusOr<JsonSchema> Compile(const nlohmann::json& schema);

  // The first thing that does not fit, with its place: "/age: 7.5 is no integer". "" for none; the
  // time is bounded by the value's size times the schema's.
  std::string Problem(const nlohmann::json& value) const;

 private:
  struct Rules;
  friend class SchemaCompiler;
  friend class SchemaCheck;

  explicit JsonSchema(std::shared_ptr<const Rules> rules) : rules_(std::move(rules)) {}

  std::shared_ptr<const Rules> rules_;
};

}  // namespace rein::json

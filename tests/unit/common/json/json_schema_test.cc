#include "common/json/json_schema.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/json/parse_json.h"

namespace rein::json {
namespace {

using ::testing::HasSubstr;

std::string Problem(const std::string& schema, const std::string& value) {
  absl::StatusOr<JsonSchema> compiled = JsonSchema::Compile(*ParseJson(schema));
  return compiled.ok() ? compiled->Problem(*ParseJson(value))
                       : std::string(compiled.status().message());
}

TEST(JsonSchemaTest, WhatFits) {
  for (auto [schema, value] : std::vector<std::pair<const char*, const char*>>{
           {"true", "1"},
           {"{}", "null"},
           {R"({"type": "integer"})", "3.0"},
           {R"({"type": ["string", "null"]})", "null"},
           {R"({"type": "number"})", "1"},
           {R"({"const": {"a": 1}})", R"({"a": 1.0})"},
           {R"({"enum": [1, "b"]})", "\"b\""},
           {R"({"minimum": 1, "maximum": 2})", "2"},
           {R"({"exclusiveMinimum": 1})", "1.01"},
           {R"({"multipleOf": 0.1})", "0.3"},
           {R"({"maxLength": 2})", "\"é文\""},
           {R"({"pattern": "^a+$"})", "\"aa\""},
           {R"({"minimum": 5})", "\"no number\""},
           {R"({"items": {"type": "string"}})", R"(["a"])"},
           {R"({"prefixItems": [true, {"type": "null"}], "items": false})", "[1, null]"},
           {R"({"uniqueItems": true})", "[1, 2, \"1\"]"},
           {R"({"contains": {"const": 3}})", "[1, 3]"},
           {R"({"properties": {"a": {"type": "null"}}})", "{\"b\": 1}"},
           {R"({"patternProperties": {"^x": {"type": "integer"}}, "additionalProperties": false})",
            "{\"x1\": 1}"},
           {R"({"anyOf": [{"type": "null"}, {"minimum": 3}]})", "4"},
           {R"({"oneOf": [{"minimum": 3}, {"maximum": 1}]})", "4"},
           {R"({"not": {"type": "null"}, "title": "x", "description": "y"})", "1"},
           {R"({"allOf": [{"minimum": 1}, {"maximum": 2}]})", "1"}}) {
    EXPECT_EQ(Problem(schema, value), "") << schema << " " << value;
  }
}

TEST(JsonSchemaTest, WhatDoesNotFitIsNamed) {
  for (auto [schema, value, problem] :
       std::vector<std::tuple<const char*, const char*, const char*>>{
           {"false", "1", "is not allowed"},
           {R"({"type": "integer"})", "3.5", "3.5 is no integer"},
           {R"({"type": ["string", "null"]})", "true", "true is no string or null"},
           {R"({"const": 1})", "2", "2 is not 1"},
           {R"({"enum": [1]})", "2", "none of the allowed values"},
           {R"({"minimum": 1})", "0", "0 is below 1"},
           {R"({"maximum": 1})", "2", "2 is above 1"},
           {R"({"exclusiveMinimum": 1})", "1", "1 is not above 1"},
           {R"({"exclusiveMaximum": 1})", "1", "1 is not below 1"},
           {R"({"multipleOf": 2})", "3", "3 is no multiple of 2"},
           {R"({"minLength": 2})", "\"é\"", "has 1 characters, at least 2"},
           {R"({"maxLength": 1})", "\"ab\"", "has 2 characters, at most 1"},
           {R"({"pattern": "^a"})", "\"b\"", "does not match ^a"},
           {R"({"minItems": 1})", "[]", "has 0 items, at least 1"},
           {R"({"maxItems": 1})", "[1, 2]", "has 2 items, at most 1"},
           {R"({"items": {"minimum": 1}})", "[1, 0]", "/1: 0 is below 1"},
           {R"({"prefixItems": [{"type": "null"}]})", "[1]", "/0: 1 is no null"},
           {R"({"contains": {"const": 3}})", "[1]", "holds no item"},
           {R"({"uniqueItems": true})", "[1, 1]", "holds 1 twice"},
           {R"({"required": ["a"]})", "{}", "lacks a"},
           {R"({"properties": {"a/b": {"properties": {"c": {"type": "null"}}}}})",
            R"({"a/b": {"c": 1}})", "/a~1b/c: 1 is no null"},
           {R"({"additionalProperties": false, "properties": {"a": true}})", "{\"b\": 1}",
            "/b: is not allowed"},
           {R"({"minProperties": 1})", "{}", "has 0 keys, at least 1"},
           {R"({"maxProperties": 0})", "{\"a\": 1}", "has 1 keys, at most 0"},
           {R"({"patternProperties": {"^x": {"type": "integer"}}})", "{\"x\": \"\"}",
            "/x: \"\" is no integer"},
           {R"({"anyOf": [{"type": "null"}]})", "4", "fits none of anyOf"},
           {R"({"oneOf": [{"minimum": 3}, {"minimum": 1}]})", "4", "fits 2 of oneOf, want 1"},
           {R"({"allOf": [{"minimum": 5}]})", "4", "4 is below 5"},
           {R"({"not": {"minimum": 3}})", "4", "fits what it must not"}}) {
    EXPECT_THAT(Problem(schema, value), HasSubstr(problem)) << schema << " " << value;
  }
}

TEST(JsonSchemaTest, WrongSchemasAreRefusedAtTheirPlace) {
  for (auto [schema, error] : std::vector<std::pair<const char*, const char*>>{
           {"1", "the schema is no object, true or false"},
           {R"({"type": "text"})", "/type is 'text', want one of null, boolean"},
           {R"({"properties": {"a": {"minimum": "1"}}})", "/properties/a/minimum is no number"},
           {R"({"items": {"pattern": "("}})", "/items/pattern is no RE2 pattern"},
           {R"({"$ref": "#/a"})", "/$ref is a keyword that is not checked here"},
           {R"({"if": true})", "/if is a keyword that is not checked here"},
           {R"({"anyOf": []})", "/anyOf is no list of schemas"},
           {R"({"minLength": -1})", "/minLength is no count"},
           {R"({"multipleOf": 0})", "/multipleOf is not above 0"},
           {R"({"required": [1]})", "/required is no list of texts"},
           {R"({"uniqueItems": 1})", "/uniqueItems is neither"},
           {R"({"patternProperties": {"(": true}})", "/patternProperties/( is no RE2 pattern"}}) {
    EXPECT_THAT(Problem(schema, "1"), HasSubstr(error)) << schema;
  }
}

}  // namespace
}  // namespace rein::json

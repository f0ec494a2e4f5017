#include "common/json/json_schema.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <optional>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/string_view.h"

#include "common/status/status_macros.h"

namespace rein::json {

using nlohmann::json;

// One schema with those inside it.
struct JsonSchema::Rules {
  std::optional<bool> constant;  // the schemas true and false
  std::vector<std::string> types;
  std::optional<json> value;                // const
  std::optional<std::vector<json>> values;  // enum
  std::map<std::string, Rules> properties;
  std::vector<std::pair<std::shared_ptr<const re2::RE2>, Rules>> pattern_properties;
  std::unique_ptr<Rules> other_properties, items, contains, none;
  std::vector<Rules> first_items, all, any, one;
  std::vector<std::string> required;
  std::shared_ptr<const re2::RE2> pattern;
  std::optional<double> minimum, maximum, above, below, multiple;
  std::optional<size_t> min_length, max_length, min_items, max_items, min_properties,
      max_properties;
  bool unique = false;
};

namespace {

constexpr int kMaxDepth = 64;
constexpr size_t kMaxUniqueItems = 10'000;
constexpr std::array<absl::string_view, 9> kIgnored = {"title",    "description", "default",
                                                      "examples", "$schema",     "$id",
                                                      "$comment", "deprecated",  "format"};
constexpr std::array<absl::string_view, 7> kTypes = {"null",   "boolean", "object", "array",
                                                    "number", "integer", "string"};

std::string Escaped(const std::string& key) {
  return absl::StrReplaceAll(key, {{"~", "~0"}, {"/", "~1"}});
}

std::string Short(const json& value) {
  std::string text = value.dump(-1, ' ', false, json::error_handler_t::replace);
  return text.size() <= 60 ? text : text.substr(0, 57) + "...";
}

size_t CodePoints(const std::string& text) {
  return static_cast<size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; }));
}

bool IsWhole(const json& value) {
  return value.is_number_integer() ||
         (value.is_number_float() && std::floor(value.get<double>()) == value.get<double>());
}

bool HasType(const json& value, const std::string& type) {
  if (type == "null") return value.is_null();
  if (type == "boolean") return value.is_boolean();
  if (type == "object") return value.is_object();
  if (type == "array") return value.is_array();
  if (type == "string") return value.is_string();
  if (type == "integer") return IsWhole(value);
  return value.is_number();
}

}  // namespace

class SchemaCompiler {
 public:
  using Rules = JsonSchema::Rules;

  absl::Status Compile(const json& schema, const std::string& at, int depth, Rules& out) {
    if (depth > kMaxDepth) return Wrong(at, "is nested too deeply");
    if (schema.is_boolean()) {
      out.constant = schema.get<bool>();
      return absl::OkStatus();
    }
    if (!schema.is_object()) return Wrong(at, "is no object, true or false");
    for (const auto& [key, value] : schema.items()) {
      REIN_RETURN_IF_ERROR(Keyword(key, value, absl::StrCat(at, "/", Escaped(key)), depth, out));
    }
    return absl::OkStatus();
  }

 private:
  static absl::Status Wrong(const std::string& at, const std::string& what) {
    return absl::InvalidArgumentError(absl::StrCat(at.empty() ? "the schema" : at, " ", what));
  }

  absl::Status Keyword(const std::string& key, const json& value, const std::string& at, int depth,
                       Rules& out) {
    if (key == "type") return Types(value, at, out);
    if (key == "const") {
      out.value = value;
      return absl::OkStatus();
    }
    if (key == "enum") {
      if (!value.is_array() || value.empty()) return Wrong(at, "is no list of values");
      out.values.emplace(value.begin(), value.end());
      return absl::OkStatus();
    }
    if (key == "required") return Names(value, at, out.required);
    if (key == "properties" || key == "patternProperties")
      return Properties(key, value, at, depth, out);
    if (key == "additionalProperties") return One(value, at, depth, out.other_properties);
    if (key == "items") return One(value, at, depth, out.items);
    if (key == "contains") return One(value, at, depth, out.contains);
    if (key == "not") return One(value, at, depth, out.none);
    if (key == "prefixItems") return Several(value, at, depth, out.first_items);
    if (key == "allOf") return Several(value, at, depth, out.all);
    if (key == "anyOf") return Several(value, at, depth, out.any);
    if (key == "oneOf") return Several(value, at, depth, out.one);
    if (key == "pattern") return Pattern(value, at, out.pattern);
    if (key == "minimum") return Number(value, at, out.minimum);
    if (key == "maximum") return Number(value, at, out.maximum);
    if (key == "exclusiveMinimum") return Number(value, at, out.above);
    if (key == "exclusiveMaximum") return Number(value, at, out.below);
    if (key == "multipleOf") {
      REIN_RETURN_IF_ERROR(Number(value, at, out.multiple));
      return *out.multiple > 0 ? absl::OkStatus() : Wrong(at, "is not above 0");
    }
    if (key == "minLength") return Count(value, at, out.min_length);
    if (key == "maxLength") return Count(value, at, out.max_length);
    if (key == "minItems") return Count(value, at, out.min_items);
    if (key == "maxItems") return Count(value, at, out.max_items);
    if (key == "minProperties") return Count(value, at, out.min_properties);
    if (key == "maxProperties") return Count(value, at, out.max_properties);
    if (key == "uniqueItems") {
      if (!value.is_boolean()) return Wrong(at, "is neither true nor false");
      out.unique = value.get<bool>();
      return absl::OkStatus();
    }
    if (std::find(kIgnored.begin(), kIgnored.end(), key) != kIgnored.end()) return absl::OkStatus();
    return Wrong(at, "is a keyword that is not checked here: leave it out");
  }

  static absl::Status Types(const json& value, const std::string& at, Rules& out) {
    if (value.is_string()) {
      out.types = {value.get<std::string>()};
    } else {
      REIN_RETURN_IF_ERROR(Names(value, at, out.types));
    }
    for (const std::string& type : out.types) {
      if (std::find(kTypes.begin(), kTypes.end(), type) == kTypes.end()) {
        return Wrong(at,
                     absl::StrCat("is '", type, "', want one of ", absl::StrJoin(kTypes, ", ")));
      }
    }
    return absl::OkStatus();
  }

  static absl::Status Names(const json& value, const std::string& at,
                            std::vector<std::string>& out) {
    if (!value.is_array()) return Wrong(at, "is no list of texts");
    for (const json& name : value) {
      if (!name.is_string()) return Wrong(at, "is no list of texts");
      out.push_back(name.get<std::string>());
    }
    return absl::OkStatus();
  }

  static absl::Status Number(const json& value, const std::string& at, std::optional<double>& out) {
    if (!value.is_number()) return Wrong(at, "is no number");
    out = value.get<double>();
    return absl::OkStatus();
  }

  static absl::Status Count(const json& value, const std::string& at, std::optional<size_t>& out) {
    if (!IsWhole(value) || value.get<double>() < 0) return Wrong(at, "is no count");
    out = static_cast<size_t>(value.get<double>());
    return absl::OkStatus();
  }

  static absl::Status Pattern(const json& value, const std::string& at,
                              std::shared_ptr<const re2::RE2>& out) {
    if (!value.is_string()) return Wrong(at, "is no text");
    re2::RE2::Options options;
    options.set_log_errors(false);
    out = std::make_shared<re2::RE2>(value.get<std::string>(), options);
    return out->ok() ? absl::OkStatus()
                     : Wrong(at, absl::StrCat("is no RE2 pattern: ", out->error()));
  }

  absl::Status One(const json& value, const std::string& at, int depth,
                   std::unique_ptr<Rules>& out) {
    out = std::make_unique<Rules>();
    return Compile(value, at, depth + 1, *out);
  }

  absl::Status Several(const json& value, const std::string& at, int depth,
                       std::vector<Rules>& out) {
    if (!value.is_array() || value.empty()) return Wrong(at, "is no list of schemas");
    for (size_t i = 0; i < value.size(); ++i) {
      REIN_RETURN_IF_ERROR(
          Compile(value[i], absl::StrCat(at, "/", i), depth + 1, out.emplace_back()));
    }
    return absl::OkStatus();
  }

  absl::Status Properties(const std::string& key, const json& value, const std::string& at,
                          int depth, Rules& out) {
    if (!value.is_object()) return Wrong(at, "is no object of schemas");
    for (const auto& [name, schema] : value.items()) {
      const std::string place = absl::StrCat(at, "/", Escaped(name));
      Rules* rules = nullptr;
      if (key == "properties") {
        rules = &out.properties[name];
      } else {
        auto& entry = out.pattern_properties.emplace_back();
        REIN_RETURN_IF_ERROR(Pattern(name, place, entry.first));
        rules = &entry.second;
      }
      REIN_RETURN_IF_ERROR(Compile(schema, place, depth + 1, *rules));
    }
    return absl::OkStatus();
  }
};

// Each function returns what is wrong, or "".
class SchemaCheck {
 public:
  using Rules = JsonSchema::Rules;

  static std::string Check(const Rules& rules, const json& value, const std::string& at) {
    auto wrong = [&](auto&&... what) {
      return absl::StrCat(at.empty() ? "" : absl::StrCat(at, ": "), what...);
    };
    if (rules.constant) return *rules.constant ? "" : wrong("is not allowed");
    if (!rules.types.empty() &&
        std::none_of(rules.types.begin(), rules.types.end(),
                     [&](const std::string& type) { return HasType(value, type); })) {
      return wrong(Short(value), " is no ", absl::StrJoin(rules.types, " or "));
    }
    if (rules.value && value != *rules.value)
      return wrong(Short(value), " is not ", Short(*rules.value));
    if (rules.values &&
        std::find(rules.values->begin(), rules.values->end(), value) == rules.values->end()) {
      return wrong(Short(value), " is none of the allowed values");
    }
    std::string problem;
    if (value.is_number()) problem = OfNumber(rules, value);
    if (value.is_string()) problem = OfText(rules, value);
    if (!problem.empty()) return wrong(problem);
    if (value.is_array()) problem = OfArray(rules, value, at);
    if (value.is_object()) problem = OfObject(rules, value, at);
    if (!problem.empty()) return problem;
    for (const Rules& one : rules.all) {
      if (problem = Check(one, value, at); !problem.empty()) return problem;
    }
    auto fits = [&](const Rules& one) { return Check(one, value, at).empty(); };
    if (!rules.any.empty() && std::none_of(rules.any.begin(), rules.any.end(), fits))
      return wrong("fits none of anyOf");
    if (!rules.one.empty()) {
      auto count = std::count_if(rules.one.begin(), rules.one.end(), fits);
      if (count != 1) return wrong("fits ", count, " of oneOf, want 1");
    }
    if (rules.none && fits(*rules.none)) return wrong("fits what it must not");
    return "";
  }

 private:
  static std::string OfNumber(const Rules& rules, const json& value) {
    const double number = value.get<double>();
    if (rules.minimum && number < *rules.minimum)
      return absl::StrCat(number, " is below ", *rules.minimum);
    if (rules.maximum && number > *rules.maximum)
      return absl::StrCat(number, " is above ", *rules.maximum);
    if (rules.above && number <= *rules.above)
      return absl::StrCat(number, " is not above ", *rules.above);
    if (rules.below && number >= *rules.below)
      return absl::StrCat(number, " is not below ", *rules.below);
    if (rules.multiple) {
      const double ratio = number / *rules.multiple;
      if (!(std::abs(ratio - std::round(ratio)) <= 1e-9 * std::max(1.0, std::abs(ratio)))) {
        return absl::StrCat(number, " is no multiple of ", *rules.multiple);
      }
    }
    return "";
  }

  static std::string OfText(const Rules& rules, const json& value) {
    const std::string& text = value.get_ref<const std::string&>();
    const size_t length = CodePoints(text);
    if (rules.min_length && length < *rules.min_length)
      return absl::StrCat("has ", length, " characters, at least ", *rules.min_length);
    if (rules.max_length && length > *rules.max_length)
      return absl::StrCat("has ", length, " characters, at most ", *rules.max_length);
    if (rules.pattern && !re2::RE2::PartialMatch(text, *rules.pattern)) {
      return absl::StrCat(Short(value), " does not match ", rules.pattern->pattern());
    }
    return "";
  }

  static std::string OfArray(const Rules& rules, const json& value, const std::string& at) {
    const std::string head = at.empty() ? "" : absl::StrCat(at, ": ");
    if (rules.min_items && value.size() < *rules.min_items)
      return absl::StrCat(head, "has ", value.size(), " items, at least ", *rules.min_items);
    if (rules.max_items && value.size() > *rules.max_items)
      return absl::StrCat(head, "has ", value.size(), " items, at most ", *rules.max_items);
    for (size_t i = 0; i < value.size(); ++i) {
      const Rules* item = i < rules.first_items.size() ? &rules.first_items[i] : rules.items.get();
      if (item == nullptr) continue;
      if (std::string problem = Check(*item, value[i], absl::StrCat(at, "/", i)); !problem.empty())
        return problem;
    }
    if (rules.contains && std::none_of(value.begin(), value.end(), [&](const json& item) {
          return Check(*rules.contains, item, at).empty();
        })) {
      return absl::StrCat(head, "holds no item that fits contains");
    }
    if (rules.unique) {
      if (value.size() > kMaxUniqueItems)
        return absl::StrCat(head, "has too many items to compare");
      std::set<std::string> seen;
      for (const json& item : value) {
        if (!seen.insert(item.dump(-1, ' ', false, json::error_handler_t::replace)).second)
          return absl::StrCat(head, "holds ", Short(item), " twice");
      }
    }
    return "";
  }

  static std::string OfObject(const Rules& rules, const json& value, const std::string& at) {
    const std::string head = at.empty() ? "" : absl::StrCat(at, ": ");
    if (rules.min_properties && value.size() < *rules.min_properties)
      return absl::StrCat(head, "has ", value.size(), " keys, at least ", *rules.min_properties);
    if (rules.max_properties && value.size() > *rules.max_properties)
      return absl::StrCat(head, "has ", value.size(), " keys, at most ", *rules.max_properties);
    for (const std::string& name : rules.required) {
      if (!value.contains(name)) return absl::StrCat(head, "lacks ", name);
    }
    for (const auto& [name, item] : value.items()) {
      const std::string place = absl::StrCat(at, "/", Escaped(name));
      bool known = false;
      auto property = rules.properties.find(name);
      if (property != rules.properties.end()) {
        known = true;
        if (std::string problem = Check(property->second, item, place); !problem.empty())
          return problem;
      }
      for (const auto& [pattern, schema] : rules.pattern_properties) {
        if (!re2::RE2::PartialMatch(name, *pattern)) continue;
        known = true;
        if (std::string problem = Check(schema, item, place); !problem.empty()) return problem;
      }
      if (known || !rules.other_properties) continue;
      if (std::string problem = Check(*rules.other_properties, item, place); !problem.empty())
        return problem;
    }
    return "";
  }
};

absl::StatusOr<JsonSchema> JsonSchema::Compile(const json& schema) {
  auto rules = std::make_shared<Rules>();
  REIN_RETURN_IF_ERROR(SchemaCompiler().Compile(schema, "", 0, *rules));
  return JsonSchema(std::move(rules));
}

std::string JsonSchema::Problem(const json& value) const {
  return SchemaCheck::Check(*rules_, value, "");
}

}  // namespace rein::json

#include "reward/rules/columns.h"

#include <cmath>

#include "common/json/parse_json.h"

namespace rein::reward {
namespace {

using google::protobuf::Value;
using nlohmann::json;

json ToJson(const Value& value) {
  switch (value.kind_case()) {
    case Value::kBoolValue:
      return value.bool_value();
    case Value::kStringValue:
      return value.string_value();
    case Value::kNumberValue: {
      const double number = value.number_value();
      if (std::floor(number) == number && std::abs(number) < 9e15)
        return static_cast<int64_t>(number);
      return number;
    }
    case Value::kListValue: {
      json list = json::array();
      for (const Value& one : value.list_value().values()) list.push_back(ToJson(one));
      return list;
    }
    case Value::kStructValue: {
      json object = json::object();
      for (const auto& [key, one] : value.struct_value().fields()) object[key] = ToJson(one);
      return object;
    }
    default:
      return nullptr;
  }
}

}  // namespace

const Value* FindColumn(const google::protobuf::Struct& columns, absl::string_view path) {
  const google::protobuf::Struct* at = &columns;
  while (true) {
    auto whole = at->fields().find(std::string(path));
    if (whole != at->fields().end()) return &whole->second;
    size_t dot = path.find('.');
    if (dot == absl::string_view::npos) return nullptr;
    auto inner = at->fields().find(std::string(path.substr(0, dot)));
    if (inner == at->fields().end() || !inner->second.has_struct_value()) return nullptr;
    at = &inner->second.struct_value();
    path = path.substr(dot + 1);
  }
}

std::string ColumnText(const Value& value) {
  if (value.kind_case() == Value::kStringValue) return value.string_value();
  return ToJson(value).dump(-1, ' ', false, json::error_handler_t::replace);
}

absl::StatusOr<json> ColumnJson(const Value& value) {
  if (value.kind_case() == Value::kStringValue) return rein::json::ParseJson(value.string_value());
  return ToJson(value);
}

}  // namespace rein::reward

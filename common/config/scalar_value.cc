#include "common/config/scalar_value.h"

#include <charconv>
#include <cmath>
#include <optional>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

#include "common/config/nearest_name.h"
#include "common/config/schema.h"

namespace rein::config {
namespace {

using google::protobuf::Message;
using google::protobuf::Reflection;

std::string Refusal(const FieldDescriptor& field, const std::string& text,
                    const std::string& hint = "") {
  std::string shown = text.size() > 60 ? text.substr(0, 57) + "..." : text;
  if (shown.empty()) shown = "''";
  return absl::StrCat("wants ", WantedOf(field), ", got ", shown, hint);
}

bool InRange(double value, const v1::FieldRules& rules) {
  if (rules.has_min() && (rules.exclusive_min() ? value <= rules.min() : value < rules.min())) {
    return false;
  }
  if (rules.has_max() && (rules.exclusive_max() ? value >= rules.max() : value > rules.max())) {
    return false;
  }
  return true;
}

std::string SetNumber(const std::string& text, bool quoted, const FieldDescriptor& field,
                      Message& message) {
  double value = 0;
  if (quoted || !absl::SimpleAtod(text, &value) || !std::isfinite(value) ||
      !InRange(value, RulesOf(field))) {
    return Refusal(field, text);
  }
  const Reflection& reflection = *message.GetReflection();
  field.is_repeated() ? reflection.AddDouble(&message, &field, value)
                      : reflection.SetDouble(&message, &field, value);
  return "";
}

std::string SetWhole(const std::string& text, bool quoted, const FieldDescriptor& field,
                     Message& message) {
  uint64_t value = 0;
  bool narrow = field.cpp_type() == FieldDescriptor::CPPTYPE_UINT32;
  if (quoted || text.empty() || !absl::SimpleAtoi(text, &value) || text[0] == '+' ||
      (narrow && value > UINT32_MAX) || !InRange(static_cast<double>(value), RulesOf(field))) {
    return Refusal(field, text);
  }
  const Reflection& reflection = *message.GetReflection();
  if (narrow) {
    field.is_repeated() ? reflection.AddUInt32(&message, &field, static_cast<uint32_t>(value))
                        : reflection.SetUInt32(&message, &field, static_cast<uint32_t>(value));
  } else {
    field.is_repeated() ? reflection.AddUInt64(&message, &field, value)
                        : reflection.SetUInt64(&message, &field, value);
  }
  return "";
}

std::string SetBool(const std::string& text, bool quoted, const FieldDescriptor& field,
                    Message& message) {
  if (quoted || (text != "true" && text != "false")) return Refusal(field, text);
  message.GetReflection()->SetBool(&message, &field, text == "true");
  return "";
}

std::string SetEnum(const std::string& text, const FieldDescriptor& field, Message& message) {
  std::string name = text;
  for (char& c : name) {
    if (c == '-') c = '_';
  }
  const EnumDescriptor& type = *field.enum_type();
  for (int i = 0; i < type.value_count(); ++i) {
    if (type.value(i)->number() == 0 || NameOf(*type.value(i)) != name) continue;
    message.GetReflection()->SetEnum(&message, &field, type.value(i));
    return "";
  }
  std::string nearest = NearestName(text, NamesOf(type));
  return Refusal(field, text, nearest.empty() ? "" : absl::StrCat("; did you mean ", nearest, "?"));
}

std::string Number(double value) {
  char buffer[64];
  auto end = std::to_chars(buffer, buffer + sizeof(buffer), value);  // shortest that reads back
  return std::string(buffer, end.ptr);
}

// Quoted where YAML would read the plain text as something else than this text.
std::string Quoted(const std::string& text) {
  static constexpr char kPlain[] =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./";
  double number = 0;
  bool word = text == "true" || text == "false" || text == "null" || text == "~";
  if (!text.empty() && !word && text.find_first_not_of(kPlain) == std::string::npos &&
      text[0] != '-' && !absl::SimpleAtod(text, &number)) {
    return text;
  }
  std::string quoted = "\"";
  for (unsigned char c : text) {
    if (c == '"' || c == '\\') {
      quoted += {'\\', static_cast<char>(c)};
    } else if (c == '\n') {
      quoted += "\\n";
    } else if (c < 0x20) {
      absl::StrAppend(&quoted, "\\x", absl::Hex(c, absl::kZeroPad2));
    } else {
      quoted += static_cast<char>(c);
    }
  }
  return quoted + "\"";
}

}  // namespace

std::string SetScalar(const std::string& text, bool quoted, const FieldDescriptor& field,
                      Message& message) {
  const Reflection& reflection = *message.GetReflection();
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_BOOL:
      return SetBool(text, quoted, field, message);
    case FieldDescriptor::CPPTYPE_ENUM:
      return SetEnum(text, field, message);
    case FieldDescriptor::CPPTYPE_DOUBLE:
      return SetNumber(text, quoted, field, message);
    case FieldDescriptor::CPPTYPE_UINT32:
    case FieldDescriptor::CPPTYPE_UINT64:
      return SetWhole(text, quoted, field, message);
    case FieldDescriptor::CPPTYPE_STRING:
      field.is_repeated() ? reflection.AddString(&message, &field, text)
                          : reflection.SetString(&message, &field, text);
      return "";
    default:
      return absl::StrCat("has a type that a job cannot set: ", field.cpp_type_name());
  }
}

std::string ScalarText(const Message& message, const FieldDescriptor& field, int index) {
  const Reflection& r = *message.GetReflection();
  const bool list = field.is_repeated();
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_BOOL:
      return r.GetBool(message, &field) ? "true" : "false";
    case FieldDescriptor::CPPTYPE_ENUM:
      return NameOf(*r.GetEnum(message, &field));
    case FieldDescriptor::CPPTYPE_DOUBLE:
      return Number(list ? r.GetRepeatedDouble(message, &field, index)
                         : r.GetDouble(message, &field));
    case FieldDescriptor::CPPTYPE_UINT32:
      return absl::StrCat(list ? r.GetRepeatedUInt32(message, &field, index)
                               : r.GetUInt32(message, &field));
    case FieldDescriptor::CPPTYPE_UINT64:
      return absl::StrCat(list ? r.GetRepeatedUInt64(message, &field, index)
                               : r.GetUInt64(message, &field));
    case FieldDescriptor::CPPTYPE_STRING:
      return Quoted(list ? r.GetRepeatedString(message, &field, index)
                         : r.GetString(message, &field));
    default:
      return "null";
  }
}

}  // namespace rein::config

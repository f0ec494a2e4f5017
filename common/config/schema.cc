#include "common/config/schema.h"

#include <cctype>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace rein::config {
namespace {

std::string Lower(std::string text) {
  for (char& c : text) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return text;
}

// TokenMean -> token_mean, as the enum's prefix is written.
std::string Snake(const std::string& camel) {
  std::string snake;
  for (size_t i = 0; i < camel.size(); ++i) {
    if (i > 0 && std::isupper(static_cast<unsigned char>(camel[i]))) snake += '_';
    snake += static_cast<char>(std::tolower(static_cast<unsigned char>(camel[i])));
  }
  return snake;
}

std::string RangeText(const v1::FieldRules& rules) {
  if (rules.has_min() && rules.has_max()) {
    return absl::StrCat(" in ", rules.exclusive_min() ? "(" : "[", rules.min(), ", ", rules.max(),
                        rules.exclusive_max() ? ")" : "]");
  }
  if (rules.has_min()) {
    return absl::StrCat(rules.exclusive_min() ? " above " : " of at least ", rules.min());
  }
  if (rules.has_max()) {
    return absl::StrCat(rules.exclusive_max() ? " below " : " of at most ", rules.max());
  }
  return "";
}

}  // namespace

const v1::FieldRules& RulesOf(const FieldDescriptor& field) {
  return field.options().GetExtension(v1::rules);
}

bool IsMessage(const FieldDescriptor& field) {
  return field.cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE;
}

const OneofDescriptor* ChoiceOf(const FieldDescriptor& field) {
  return field.real_containing_oneof();
}

bool ChoiceIsRequired(const OneofDescriptor& choice) {
  return choice.options().GetExtension(v1::choice_required);
}

std::vector<std::string> ChoiceKeys(const OneofDescriptor& choice) {
  std::vector<std::string> keys;
  for (int i = 0; i < choice.field_count(); ++i) keys.push_back(choice.field(i)->name());
  return keys;
}

const FieldDescriptor* ShorthandOf(const Descriptor& message) {
  const std::string& name = message.options().GetExtension(v1::shorthand);
  return name.empty() ? nullptr : message.FindFieldByName(name);
}

std::vector<std::string> KeysOf(const Descriptor& message) {
  std::vector<std::string> keys;
  for (int i = 0; i < message.field_count(); ++i) keys.push_back(message.field(i)->name());
  return keys;
}

std::string NameOf(const EnumValueDescriptor& value) {
  std::string name = Lower(value.name());
  std::string prefix = Snake(value.type()->name()) + "_";
  if (name.rfind(prefix, 0) == 0) name = name.substr(prefix.size());
  return name;
}

std::vector<std::string> NamesOf(const EnumDescriptor& type) {
  std::vector<std::string> names;
  for (int i = 0; i < type.value_count(); ++i) {
    if (type.value(i)->number() != 0) names.push_back(NameOf(*type.value(i)));
  }
  return names;
}

std::string WantedOf(const FieldDescriptor& field) {
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_BOOL:
      return "true or false";
    case FieldDescriptor::CPPTYPE_ENUM:
      return absl::StrCat("one of ", absl::StrJoin(NamesOf(*field.enum_type()), ", "));
    case FieldDescriptor::CPPTYPE_DOUBLE:
    case FieldDescriptor::CPPTYPE_FLOAT:
      return absl::StrCat("a number", RangeText(RulesOf(field)));
    case FieldDescriptor::CPPTYPE_STRING:
      return RulesOf(field).path() ? "a path" : "a text";
    case FieldDescriptor::CPPTYPE_MESSAGE:
      return absl::StrCat("keys (", absl::StrJoin(KeysOf(*field.message_type()), ", "), ")");
    default: {
      std::string range = RangeText(RulesOf(field));
      return absl::StrCat("a whole number", range.empty() ? " of at least 0" : range);
    }
  }
}

std::string OrList(const std::vector<std::string>& names) {
  if (names.size() < 2) return absl::StrJoin(names, "");
  std::vector<std::string> front(names.begin(), names.end() - 1);
  return absl::StrCat(absl::StrJoin(front, ", "), " or ", names.back());
}

}  // namespace rein::config

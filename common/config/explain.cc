#include "common/config/explain.h"

#include <algorithm>
#include <memory>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

#include "common/config/algorithm_table.h"
#include "common/config/axis_table.h"
#include "common/config/defaults.h"
#include "common/config/nearest_name.h"
#include "common/config/scalar_value.h"
#include "common/config/schema.h"
#include "common/config/yaml_reader.h"
#include "rein/v1/job.pb.h"

namespace rein::config {
namespace {

using google::protobuf::Message;

std::string TypeOf(const FieldDescriptor& field) {
  std::string type = IsMessage(field) ? "keys" : WantedOf(field);
  for (const char* article : {"a ", "one of "}) {
    if (type.rfind(article, 0) == 0) type = type.substr(std::string(article).size());
  }
  return field.is_repeated() ? absl::StrCat("list of ", type) : type;
}

// `holder`: the message of the field with all defaults of the preset in question; may be null.
std::string DefaultOf(const FieldDescriptor& field, const Message* holder) {
  const v1::FieldRules& rules = RulesOf(field);
  if (rules.required()) return "required";
  std::string value = rules.default_value();
  const bool set = holder != nullptr && !IsMessage(field) && !field.is_repeated() &&
                   holder->GetReflection()->HasField(*holder, &field);
  if (set) {
    std::unique_ptr<Message> plain(holder->New());
    if (!value.empty()) SetScalar(value, /*quoted=*/false, field, *plain);
    const std::string preset = ScalarText(*holder, field, 0);
    if (value.empty() || ScalarText(*plain, field, 0) != preset) value = preset;
  }
  return value.empty() ? "" : absl::StrCat("default ", value);
}

// The message below `holder` that the field holds; null where there is none.
const Message* Below(const Message* holder, const FieldDescriptor& field) {
  if (holder == nullptr || !IsMessage(field) || field.is_repeated()) return nullptr;
  if (!holder->GetReflection()->HasField(*holder, &field)) return nullptr;
  return &holder->GetReflection()->GetMessage(*holder, &field);
}

// The dotted paths of every key, without list indexes.
void AllKeys(const Descriptor& type, const std::string& path, std::vector<std::string>& keys) {
  for (int i = 0; i < type.field_count(); ++i) {
    const FieldDescriptor& field = *type.field(i);
    const std::string key = Dotted(path, field.name());
    keys.push_back(key);
    if (IsMessage(field)) AllKeys(*field.message_type(), key, keys);
  }
}

std::string Keys(const Descriptor& type, const Message* holder) {
  size_t width = 0;
  for (const std::string& key : KeysOf(type)) width = std::max(width, key.size());
  std::string text;
  for (int i = 0; i < type.field_count(); ++i) {
    const FieldDescriptor& field = *type.field(i);
    std::string fallback = DefaultOf(field, holder);
    absl::StrAppend(&text, "  ", field.name(), std::string(width + 2 - field.name().size(), ' '),
                    TypeOf(field), fallback.empty() ? "" : ", " + fallback, "\n",
                    std::string(width + 4, ' '), RulesOf(field).doc(), "\n");
  }
  return text;
}

std::string Describe(const std::string& path, const FieldDescriptor& field,
                     const Message* holder) {
  const v1::FieldRules& rules = RulesOf(field);
  std::string fallback = DefaultOf(field, holder);
  std::string text = absl::StrCat(path, "   ", TypeOf(field));
  if (!rules.unit().empty()) absl::StrAppend(&text, " (", rules.unit(), ")");
  absl::StrAppend(&text, fallback.empty() ? "" : ", " + fallback, "\n  ", rules.doc(), "\n");
  if (!rules.peers().empty()) absl::StrAppend(&text, "  Elsewhere: ", rules.peers(), "\n");
  if (path.find('.') != std::string::npos) text += ExplainAxis(path.substr(path.find('.') + 1));
  if (const OneofDescriptor* choice = ChoiceOf(field)) {
    absl::StrAppend(&text, "  Give one of: ", OrList(ChoiceKeys(*choice)), "\n");
  }
  if (IsMessage(field)) {
    const FieldDescriptor* shorthand = ShorthandOf(*field.message_type());
    if (shorthand != nullptr) {
      absl::StrAppend(&text, "  A value alone sets ", shorthand->name(), "\n");
    }
    if (field.message_type()->field_count() > 0) {
      absl::StrAppend(&text, "\n", Keys(*field.message_type(), Below(holder, field)));
    }
  }
  return text;
}

}  // namespace

absl::StatusOr<std::string> Explain(const std::string& path) {
  const Descriptor* type = v1::JobConfig::descriptor();
  if (path.empty()) return absl::StrCat("A job is one YAML file with these keys:\n\n", Keys(*type, nullptr));
  if (path == "algorithms") return ExplainAlgorithms();
  const v1::JobConfig job = JobOfDefaults(path.substr(0, path.find('.')));
  const Message *holder = nullptr, *next = &job;
  const FieldDescriptor* field = nullptr;
  for (const std::string& segment : std::vector<std::string>(absl::StrSplit(path, '.'))) {
    bool index = field != nullptr && field->is_repeated() && !segment.empty() &&
                 segment.find_first_not_of("0123456789") == std::string::npos;
    if (index) continue;
    field = type == nullptr ? nullptr : type->FindFieldByName(segment);
    if (field == nullptr) break;
    holder = next;
    next = Below(holder, *field);
    type = IsMessage(*field) ? field->message_type() : nullptr;
  }
  if (field != nullptr) return Describe(path, *field, holder);
  std::vector<std::string> keys;
  AllKeys(*v1::JobConfig::descriptor(), "", keys);
  // A last segment alone is what people remember; the shortest key that ends so is the likeliest.
  std::string nearest;
  for (const std::string& key : keys) {
    bool ends = key.size() > path.size() && key.substr(key.size() - path.size() - 1) == "." + path;
    if (ends && (nearest.empty() || key.size() < nearest.size())) nearest = key;
  }
  if (nearest.empty()) nearest = NearestName(path, keys);
  return absl::NotFoundError(absl::StrCat(
      "no key ", path, nearest.empty() ? "" : absl::StrCat("; did you mean ", nearest, "?")));
}

}  // namespace rein::config

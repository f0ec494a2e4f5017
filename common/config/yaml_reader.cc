#include "common/config/yaml_reader.h"

#include "absl/strings/str_cat.h"

#include "common/config/nearest_name.h"
#include "common/config/scalar_value.h"
#include "common/config/schema.h"

namespace rein::config {
namespace {

std::string Suggestion(const std::string& name, const std::vector<std::string>& candidates) {
  std::string nearest = NearestName(name, candidates);
  if (!nearest.empty()) return absl::StrCat("; did you mean ", nearest, "?");
  if (candidates.size() <= 12) return absl::StrCat("; known here: ", OrList(candidates));
  return "";
}

std::string Shown(const YamlNode& node) {
  switch (node.kind) {
    case YamlNode::Kind::kNull:
      return "nothing";
    case YamlNode::Kind::kList:
      return "a list";
    case YamlNode::Kind::kMap:
      return "keys";
    case YamlNode::Kind::kScalar:
      break;
  }
  return node.text.size() > 60 ? absl::StrCat("'", node.text.substr(0, 57), "...'")
                               : absl::StrCat("'", node.text, "'");
}

}  // namespace

std::string Dotted(const std::string& parent, const std::string& key) {
  return parent.empty() ? key : absl::StrCat(parent, ".", key);
}

void YamlReader::Read(const YamlNode& node, const std::string& path, Message& message) {
  const Descriptor& type = *message.GetDescriptor();
  places_[path] = node.place;
  if (node.kind == YamlNode::Kind::kScalar && ShorthandOf(type) != nullptr) {
    const FieldDescriptor& field = *ShorthandOf(type);
    ReadField(node, Dotted(path, field.name()), field, message);
  } else if (node.kind == YamlNode::Kind::kMap) {
    ReadEntries(node, path, message);
  } else if (node.kind != YamlNode::Kind::kNull || path.empty()) {
    std::vector<std::string> keys = KeysOf(type);
    problems_.Add(node.place, path,
                  absl::StrCat("wants ", keys.empty() ? "{}" : "keys such as " + keys.front(),
                               ", got ", Shown(node)));
    return;
  }
  CheckAbsent(node, path, message);
}

void YamlReader::ReadEntries(const YamlNode& node, const std::string& path, Message& message) {
  const Descriptor& type = *message.GetDescriptor();
  std::map<const OneofDescriptor*, std::string> chosen;
  for (const YamlEntry& entry : node.entries) {
    const std::string key_path = Dotted(path, entry.key);
    const FieldDescriptor* field = type.FindFieldByName(entry.key);
    if (field == nullptr) {
      problems_.Add(entry.place, key_path,
                    absl::StrCat("no such key", Suggestion(entry.key, KeysOf(type))));
      continue;
    }
    if (const OneofDescriptor* choice = ChoiceOf(*field)) {
      auto [other, first] = chosen.emplace(choice, entry.key);
      if (!first) {
        problems_.Add(entry.place, key_path,
                      absl::StrCat("cannot stand beside ", other->second, ": give one of ",
                                   OrList(ChoiceKeys(*choice))));
        continue;
      }
    }
    places_[key_path] = entry.node().place.line > 0 ? entry.node().place : entry.place;
    ReadField(entry.node(), key_path, *field, message);
  }
}

void YamlReader::ReadField(const YamlNode& node, const std::string& path, const Field& field,
                           Message& message) {
  if (field.is_repeated()) {
    ReadList(node, path, field, message);
  } else if (IsMessage(field)) {
    Read(node, path, *message.GetReflection()->MutableMessage(&message, &field));
  } else {
    ReadScalar(node, path, field, message);
  }
}

void YamlReader::ReadList(const YamlNode& node, const std::string& path, const Field& field,
                          Message& message) {
  if (node.kind == YamlNode::Kind::kNull) return;
  if (node.kind != YamlNode::Kind::kList) {
    problems_.Add(node.place, path, absl::StrCat("wants a list, got ", Shown(node)));
    return;
  }
  for (size_t i = 0; i < node.items.size(); ++i) {
    const std::string item_path = absl::StrCat(path, ".", i);
    if (IsMessage(field)) {
      Read(node.items[i], item_path, *message.GetReflection()->AddMessage(&message, &field));
    } else {
      ReadScalar(node.items[i], item_path, field, message);
    }
  }
}

void YamlReader::ReadScalar(const YamlNode& node, const std::string& path, const Field& field,
                            Message& message) {
  if (node.kind != YamlNode::Kind::kScalar) {
    problems_.Add(node.place, path, absl::StrCat("wants ", WantedOf(field), ", got ", Shown(node)));
    return;
  }
  std::string problem = SetScalar(node.text, node.quoted, field, message);
  if (!problem.empty()) problems_.Add(node.place, path, problem);
}

void YamlReader::CheckAbsent(const YamlNode& node, const std::string& path,
                             const Message& message) {
  const Descriptor& type = *message.GetDescriptor();
  const auto& reflection = *message.GetReflection();
  for (int i = 0; i < type.field_count(); ++i) {
    const FieldDescriptor& field = *type.field(i);
    // A key that is there with a wrong value has been reported.
    bool there = places_.count(Dotted(path, field.name())) > 0;
    if (RulesOf(field).required() && !there && !reflection.HasField(message, &field)) {
      problems_.Add(node.place, Dotted(path, field.name()),
                    absl::StrCat("is required: ", RulesOf(field).doc()));
    }
  }
  for (int i = 0; i < type.real_oneof_decl_count(); ++i) {
    const OneofDescriptor& choice = *type.oneof_decl(i);
    if (!ChoiceIsRequired(choice) || reflection.HasOneof(message, &choice)) continue;
    problems_.Add(node.place, path,
                  absl::StrCat("wants one of the keys ", OrList(ChoiceKeys(choice))));
  }
}

}  // namespace rein::config

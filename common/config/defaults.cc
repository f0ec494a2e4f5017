#include "common/config/defaults.h"

#include <memory>

#include "common/config/problems.h"
#include "common/config/scalar_value.h"
#include "common/config/schema.h"
#include "common/config/yaml_reader.h"
#include "common/config/yaml_tree.h"

namespace rein::config {
namespace {

using google::protobuf::Message;
using google::protobuf::Reflection;

bool NeedsTheUser(const Descriptor& type) {
  for (int i = 0; i < type.field_count(); ++i) {
    if (RulesOf(*type.field(i)).required()) return true;
  }
  for (int i = 0; i < type.real_oneof_decl_count(); ++i) {
    if (ChoiceIsRequired(*type.oneof_decl(i))) return true;
  }
  return false;
}

// Puts the preset of the field below what the user gave.
void ApplyPreset(Message& message, const FieldDescriptor& field) {
  absl::StatusOr<YamlNode> yaml = ParseYaml(RulesOf(field).defaults());
  if (!yaml.ok()) return;  // explain_test reads every preset
  std::unique_ptr<Message> preset(message.New());
  Problems problems;
  Places places;
  YamlReader(problems, places).Read(*yaml, "", *preset);
  preset->MergeFrom(message);
  message.CopyFrom(*preset);
}

void FillMessage(Message& message, const FieldDescriptor& field) {
  const Reflection& reflection = *message.GetReflection();
  if (field.is_repeated()) {
    for (int i = 0; i < reflection.FieldSize(message, &field); ++i) {
      ApplyDefaults(*reflection.MutableRepeatedMessage(&message, &field, i));
    }
    return;
  }
  bool there = reflection.HasField(message, &field);
  // One without keys says something by being there.
  bool make = ChoiceOf(field) == nullptr && !RulesOf(field).required() &&
              field.message_type()->field_count() > 0 && !NeedsTheUser(*field.message_type());
  if (!there && !make) return;
  Message& child = *reflection.MutableMessage(&message, &field);
  if (!RulesOf(field).defaults().empty()) ApplyPreset(child, field);
  ApplyDefaults(child);
}

}  // namespace

void ApplyDefaults(Message& message) {
  const Descriptor& type = *message.GetDescriptor();
  for (int i = 0; i < type.field_count(); ++i) {
    const FieldDescriptor& field = *type.field(i);
    if (IsMessage(field)) {
      FillMessage(message, field);
    } else if (!field.is_repeated() && !RulesOf(field).default_value().empty() &&
               !message.GetReflection()->HasField(message, &field)) {
      SetScalar(RulesOf(field).default_value(), /*quoted=*/false, field, message);
    }
  }
}

v1::JobConfig JobOfDefaults(const std::string& key) {
  v1::JobConfig job;
  const FieldDescriptor* field = job.GetDescriptor()->FindFieldByName(key);
  if (field != nullptr && IsMessage(*field) && !field->is_repeated()) {
    job.GetReflection()->MutableMessage(&job, field);
  }
  ApplyDefaults(job);
  return job;
}

}  // namespace rein::config

#include "common/config/defaults.h"

#include "common/config/scalar_value.h"
#include "common/config/schema.h"

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

void FillMessage(Message& message, const FieldDescriptor& field) {
  const Reflection& reflection = *message.GetReflection();
  if (field.is_repeated()) {
    for (int i = 0; i < reflection.FieldSize(message, &field); ++i) {
      ApplyDefaults(*reflection.MutableRepeatedMessage(&message, &field, i));
    }
    return;
  }
  bool there = reflection.HasField(message, &field);
  bool make = ChoiceOf(field) == nullptr && !RulesOf(field).required() &&
              !NeedsTheUser(*field.message_type());
  if (there || make) ApplyDefaults(*reflection.MutableMessage(&message, &field));
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

}  // namespace rein::config

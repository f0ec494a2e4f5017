// The schema of a job as its protos and their field options tell it, in the words of a YAML file.

#pragma once

#include <string>
#include <vector>

#include <google/protobuf/descriptor.h>

#include "rein/v1/annotations.pb.h"

namespace rein::config {

using google::protobuf::Descriptor;
using google::protobuf::EnumDescriptor;
using google::protobuf::EnumValueDescriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::OneofDescriptor;

const v1::FieldRules& RulesOf(const FieldDescriptor& field);

bool IsMessage(const FieldDescriptor& field);
// The oneof that the field belongs to; null for a field on its own.
const OneofDescriptor* ChoiceOf(const FieldDescriptor& field);
bool ChoiceIsRequired(const OneofDescriptor& choice);
std::vector<std::string> ChoiceKeys(const OneofDescriptor& choice);

// The field that a bare scalar sets; null when the message has none.
const FieldDescriptor* ShorthandOf(const Descriptor& message);

std::vector<std::string> KeysOf(const Descriptor& message);

// Lower snake case without the enum's prefix; the zero value ("absent") has no name.
std::string NameOf(const EnumValueDescriptor& value);
std::vector<std::string> NamesOf(const EnumDescriptor& type);

// What a value must be, for "wants ...": "a number in [0, 1)", "one of k1, k2, k3", "true or
// false".
std::string WantedOf(const FieldDescriptor& field);

// "a, b or c".
std::string OrList(const std::vector<std::string>& names);

}  // namespace rein::config

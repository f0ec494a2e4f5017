// SetScalar reads one text as a value of a proto field and checks it against the field's rules.

#pragma once

#include <string>

#include <google/protobuf/message.h>

namespace rein::config {

// Sets (for a list: adds) the field. Returns what is wrong with the text, "wants ..., got ...", or
// "" when the field was set. `quoted`: the text stood in quotes, so it is not a number.
std::string SetScalar(const std::string& text, bool quoted,
                      const google::protobuf::FieldDescriptor& field,
                      google::protobuf::Message& message);

// The YAML text of a field's value; `index` counts in a list and is ignored elsewhere.
std::string ScalarText(const google::protobuf::Message& message,
                       const google::protobuf::FieldDescriptor& field, int index);

}  // namespace rein::config

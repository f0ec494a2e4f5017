#include "common/config/yaml_writer.h"

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>
#include <openssl/sha.h>

#include "common/config/scalar_value.h"
#include "common/config/schema.h"

namespace rein::config {
namespace {

using google::protobuf::Message;
using google::protobuf::Reflection;

void WriteMessage(const Message& message, const std::string& indent, std::string& out);

bool IsEmpty(const Message& message) {
  std::vector<const FieldDescriptor*> fields;
  message.GetReflection()->ListFields(message, &fields);
  return fields.empty();
}

// "key: value" or "key:" and an indented block, without the indent in front of the key.
void WriteField(const Message& message, const FieldDescriptor& field, const std::string& indent,
                std::string& out) {
  const Reflection& reflection = *message.GetReflection();
  absl::StrAppend(&out, field.name(), ":");
  if (RulesOf(field).secret()) {
    out += " \"***\"\n";
  } else if (!field.is_repeated() && !IsMessage(field)) {
    absl::StrAppend(&out, " ", ScalarText(message, field, 0), "\n");
  } else if (!field.is_repeated()) {
    const Message& child = reflection.GetMessage(message, &field);
    out += IsEmpty(child) ? " {}\n" : "\n";
    WriteMessage(child, indent + "  ", out);
  } else if (!IsMessage(field)) {
    out += " [";
    for (int i = 0; i < reflection.FieldSize(message, &field); ++i) {
      absl::StrAppend(&out, i > 0 ? ", " : "", ScalarText(message, field, i));
    }
    out += "]\n";
  } else {
    out += "\n";
    for (int i = 0; i < reflection.FieldSize(message, &field); ++i) {
      std::string item;
      WriteMessage(reflection.GetRepeatedMessage(message, &field, i), indent + "    ", item);
      // The first key stands behind the dash.
      absl::StrAppend(&out, indent, "  - ", item.empty() ? "{}\n" : item.substr(indent.size() + 4));
    }
  }
}

void WriteMessage(const Message& message, const std::string& indent, std::string& out) {
  const Descriptor& type = *message.GetDescriptor();
  const Reflection& reflection = *message.GetReflection();
  for (int i = 0; i < type.field_count(); ++i) {  // in the order of the proto file
    const FieldDescriptor& field = *type.field(i);
    bool there = field.is_repeated() ? reflection.FieldSize(message, &field) > 0
                                     : reflection.HasField(message, &field);
    if (!there) continue;
    out += indent;
    WriteField(message, field, indent, out);
  }
}

}  // namespace

std::string ToYaml(const Message& message) {
  std::string out;
  WriteMessage(message, "", out);
  return out;
}

std::string HashOf(const Message& message) {
  std::string bytes;
  {
    google::protobuf::io::StringOutputStream stream(&bytes);
    google::protobuf::io::CodedOutputStream coded(&stream);
    coded.SetSerializationDeterministic(true);
    message.SerializeToCodedStream(&coded);
  }
  unsigned char digest[SHA256_DIGEST_LENGTH];
  SHA256(reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size(), digest);
  return absl::BytesToHexString(absl::string_view(reinterpret_cast<char*>(digest), 8));
}

}  // namespace rein::config

// YamlReader fills a proto from a YAML tree, by the proto's own descriptor and field options.
//
// Reported: unknown keys (with the nearest known one), values of another type or outside their
// range, two keys of one choice, a required choice or key that is absent. Nothing stops at the
// first problem.

#pragma once

#include <map>
#include <string>

#include <google/protobuf/message.h>

#include "common/config/problems.h"
#include "common/config/yaml_tree.h"

namespace rein::config {

// Where each key of a job stood, by dotted path.
using Places = std::map<std::string, Place>;

class YamlReader {
 public:
  // Both must outlive the reader.
  YamlReader(Problems& problems, Places& places) : problems_(problems), places_(places) {}

  // `path` is the dotted path of the message; empty at the top.
  void Read(const YamlNode& node, const std::string& path, google::protobuf::Message& message);

 private:
  using Field = google::protobuf::FieldDescriptor;
  using Message = google::protobuf::Message;

  void ReadEntries(const YamlNode& node, const std::string& path, Message& message);
  void ReadField(const YamlNode& node, const std::string& path, const Field& field,
                 Message& message);
  void ReadList(const YamlNode& node, const std::string& path, const Field& field,
                Message& message);
  void ReadScalar(const YamlNode& node, const std::string& path, const Field& field,
                  Message& message);
  void CheckAbsent(const YamlNode& node, const std::string& path, const Message& message);

  Problems& problems_;
  Places& places_;
};

// `parent` + "." + `key`, or `key` at the top.
std::string Dotted(const std::string& parent, const std::string& key);

}  // namespace rein::config

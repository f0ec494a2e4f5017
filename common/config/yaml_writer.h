// ToYaml writes a config message as YAML that reads back to the same message; secrets become "***".

#pragma once

#include <string>

#include <google/protobuf/message.h>

namespace rein::config {

std::string ToYaml(const google::protobuf::Message& message);

// 16 hexadecimal digits that name the message's content.
std::string HashOf(const google::protobuf::Message& message);

}  // namespace rein::config

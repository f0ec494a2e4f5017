// ApplyDefaults fills every key that is absent and has a default, in messages that are there and in
// those that need nothing from the user.

#pragma once

#include <google/protobuf/message.h>

namespace rein::config {

void ApplyDefaults(google::protobuf::Message& message);

}  // namespace rein::config

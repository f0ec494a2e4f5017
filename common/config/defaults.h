// ApplyDefaults fills every key that is absent and has a default, in messages that are there and in
// those that need nothing from the user. A field's own `defaults` (a preset's) come before those of its
// message's keys; of a choice they count only where the user made none, or the same one.

#pragma once

#include <google/protobuf/message.h>

namespace rein::config {

void ApplyDefaults(google::protobuf::Message& message);

}  // namespace rein::config

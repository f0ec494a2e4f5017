// ApplyDefaults fills every key that is absent and has a default, in messages that are there and in
// those that need nothing from the user. A field's own `defaults` (a preset's) come before those of its
// message's keys; of a choice they count only where the user made none, or the same one.

#pragma once

#include <string>

#include <google/protobuf/message.h>

#include "rein/v1/job.pb.h"

namespace rein::config {

void ApplyDefaults(google::protobuf::Message& message);

// A job with nothing but defaults, among them those of the block `key`, such as a kind of job.
v1::JobConfig JobOfDefaults(const std::string& key);

}  // namespace rein::config

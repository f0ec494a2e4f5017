// What a role plans to use of its device, in words.

#pragma once

#include <string>

#include "rein/v1/policy.pb.h"

namespace rein::services {

// "31.2 GiB: weights 1.2, gradients 2.4, ...".
std::string MemoryText(const google::protobuf::RepeatedPtrField<v1::MemoryPart>& parts);

}  // namespace rein::services

// ResolvePaths makes every path of a job absolute and checks that it exists.

#pragma once

#include <string>

#include <google/protobuf/message.h>

#include "common/config/problems.h"
#include "common/config/yaml_reader.h"

namespace rein::config {

// Relative paths start from `folder`; an empty folder allows absolute ones only. A path that does
// not exist is reported with the nearest name beside it.
void ResolvePaths(const std::string& folder, const Places& places, Problems& problems,
                  google::protobuf::Message& message);

}  // namespace rein::config

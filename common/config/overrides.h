// ApplyOverrides lays texts of the form key.sub=value over a job's YAML tree.
//
// The value is YAML itself, so that lists and maps can be given; a number counts in a list
// (rewards.0.weight=2); an empty value takes the key away. A shorthand in the file gives way to its
// long form: `model: DIR` and model.dtype=bfloat16 become {path: DIR, dtype: bfloat16}.

#pragma once

#include <string>
#include <vector>

#include <google/protobuf/descriptor.h>

#include "common/config/problems.h"
#include "common/config/yaml_tree.h"

namespace rein::config {

void ApplyOverrides(const std::vector<std::string>& overrides,
                    const google::protobuf::Descriptor& type, YamlNode& root, Problems& problems);

}  // namespace rein::config

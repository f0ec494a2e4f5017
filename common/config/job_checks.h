// CheckJob finds what no single key can show: contradictions, keys without effect, missing
// partners.

#pragma once

#include "common/config/problems.h"
#include "common/config/yaml_reader.h"
#include "rein/v1/job.pb.h"

namespace rein::config {

// `job` has its defaults already; `places` holds the keys that the user gave.
void CheckJob(const v1::JobConfig& job, const Places& places, Problems& problems);

}  // namespace rein::config

// Column names of known kinds of data files (DatasetConfig.schema).

#pragma once

#include "common/config/yaml_reader.h"
#include "rein/v1/job.pb.h"

namespace rein::config {

// Sets the columns of every dataset that names a schema, but for those that the user named. Call it on a job with its
// defaults.
void ApplySchemas(const Places& places, v1::JobConfig& job);

}  // namespace rein::config

// LengthOf() holds an item of the data against what the job and the model allow.

#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"

#include "rein/v1/job.pb.h"
#include "services/controller/prompt_source.h"

namespace rein::services {

struct ItemLength {
  std::string fault;    // why the item cannot be used; empty: it can
  bool is_cut = false;  // by data.truncate
};

// Of line `index` of the training data.
absl::StatusOr<ItemLength> LengthOf(PromptSource& source, uint64_t index, const v1::JobConfig& job);

// OK where the job leaves items with a fault out, else INVALID_ARGUMENT with the fault and the keys that would.
absl::Status LeavesOut(const v1::JobConfig& job, const std::string& fault);

}  // namespace rein::services

// CheckHostMemory refuses what cannot fit before it is allocated: the kernel hands out memory that it
// does not have, and kills the process when it is touched.
//
//   REIN_RETURN_IF_ERROR(CheckHostMemory("the weights", bytes));

#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace rein::tensor {

// RESOURCE_EXHAUSTED when `bytes` are more than the machine, or this process's control group, has
// left. What others will take meanwhile is not known.
absl::Status CheckHostMemory(absl::string_view what, uint64_t bytes);

}  // namespace rein::tensor

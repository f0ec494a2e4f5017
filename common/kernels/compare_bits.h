// Are two stretches of device memory equal, bit for bit? For the checks that exactness rests on.

#pragma once

#include <cstdint>

#include "absl/status/statusor.h"

namespace rein::kernels {

// Device memory of the current device, 4-byte aligned, `bytes` a multiple of 4. Blocks for the answer.
absl::StatusOr<bool> SameBits(const void* a, const void* b, int64_t bytes, void* stream);
absl::StatusOr<bool> AllZero(const void* a, int64_t bytes, void* stream);

}  // namespace rein::kernels

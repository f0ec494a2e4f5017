// What a flat compute arena is made of: its number format, and digests of the parameters in it.

#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/weights/registry.h"

namespace rein::models {

// "float32" or "bfloat16" for `dtype` on `device` (cpu or cuda:N); an empty dtype means float32 on a CPU
// and bfloat16 on a GPU. INVALID_ARGUMENT for anything else.
absl::StatusOr<std::string> ComputeDtype(const std::string& dtype, const std::string& device);

// Digest of each parameter of a flat arena, in registry order; computed where the arena is.
absl::StatusOr<std::vector<uint64_t>> ArenaDigests(const weights::Registry& registry,
                                                   const at::Tensor& arena);

}  // namespace rein::models

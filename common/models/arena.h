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

// The parts of a compute arena, each flat: what training leaves as it is, and what it moves (see weights::Registry).
struct ArenaParts {
  at::Tensor frozen, trained;

  // The parameter's elements, flat.
  at::Tensor Of(const weights::Registry& registry, const weights::Parameter& parameter) const;
};

// Views of a whole arena.
ArenaParts PartsOf(const weights::Registry& registry, const at::Tensor& arena);

// Digest of each parameter that stands in the trained part, in registry order; computed where it is.
absl::StatusOr<std::vector<uint64_t>> ArenaDigests(const weights::Registry& registry,
                                                   const at::Tensor& trained);

// Digest of all that stands in the frozen part; 0 when nothing does.
absl::StatusOr<uint64_t> FrozenDigest(const weights::Registry& registry, const at::Tensor& frozen);

}  // namespace rein::models

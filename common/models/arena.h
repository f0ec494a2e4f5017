// What a flat compute arena is made of: its number format, and digests of the parameters in it.

#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/nn/quantised_matrix.h"
#include "common/weights/registry.h"

namespace rein::models {

// "float32" or "bfloat16" for `dtype` on `device` (cpu or cuda:N); an empty dtype means float32 on a CPU
// and bfloat16 on a GPU. INVALID_ARGUMENT for anything else.
absl::StatusOr<std::string> ComputeDtype(const std::string& dtype, const std::string& device);

// Frozen matrices in 8 or 4 bits, beside a compute arena; both undefined where there are none. See nn/quantised_matrix.h.
struct QuantisedParts {
  at::Tensor code;   // uint8, flat
  at::Tensor scale;  // fp32, flat
};

// Of a registry, zeros on a device.
QuantisedParts NewQuantised(const weights::Registry& registry, at::Device device);

// The parts of a compute arena, each flat: what training leaves as it is, and what it moves (see weights::Registry).
struct ArenaParts {
  at::Tensor frozen, trained;
  QuantisedParts quantised = {};

  // A quantised parameter.
  nn::QuantisedMatrix MatrixOf(const weights::Registry& registry, const weights::Parameter& parameter) const;
  // The elements of any other, flat.
  at::Tensor Of(const weights::Registry& registry, const weights::Parameter& parameter) const;
};

// Views of a whole arena, without quantised parts.
ArenaParts PartsOf(const weights::Registry& registry, const at::Tensor& arena);

// Digest of each parameter that stands in the trained part, in registry order; computed where it is.
absl::StatusOr<std::vector<uint64_t>> ArenaDigests(const weights::Registry& registry,
                                                   const at::Tensor& trained);

// Digest of all that training leaves as it is, quantised or not; 0 when there is nothing.
absl::StatusOr<uint64_t> FrozenDigest(const weights::Registry& registry, const ArenaParts& parts);

}  // namespace rein::models

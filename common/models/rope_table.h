// Cosines and sines of rotary positions.

#pragma once

#include <cstdint>
#include <vector>

#include <ATen/core/Tensor.h>

#include "common/models/decoder_spec.h"

namespace rein::models {

// Of each position, fp32 [positions, dims / 2] on the CPU, times the attention factor.
struct RopeTable {
  at::Tensor cos, sin;
};

// `dims` are those of a head that turn.
RopeTable MakeRopeTable(const RopeSpec& rope, int64_t dims, int64_t positions);

}  // namespace rein::models

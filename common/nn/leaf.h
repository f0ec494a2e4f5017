// Leaf makes a parameter part of a formula that is written in LibTorch's own operations; only for .cc files.

#pragma once

#include <ATen/core/Tensor.h>

#include "common/nn/weight.h"

namespace rein::nn {

// The weight in `type` (Undefined: its own). What the backward pass brings it is added to weight.grad; a weight
// without one is a constant.
at::Tensor Leaf(const Weight& weight, at::ScalarType type = at::ScalarType::Undefined);

}  // namespace rein::nn

// Ranges of packed tokens, as kernels read them.

#pragma once

#include "common/kernels/ragged_offsets.h"

namespace rein::kernels {

__device__ inline int LengthOf(const Ragged& r, auto b) {
  return r.length != nullptr ? r.length[b] : r.begin[b + 1] - r.begin[b];
}

}  // namespace rein::kernels

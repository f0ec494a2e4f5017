// The joint rows of q, k and v, without norm and turn: what QkNormRope is where there is neither, sixteen bytes at a time.

#pragma once

#include "absl/status/status.h"
#include "common/kernels/qk_norm_rope.h"

namespace rein::kernels {

inline bool OnlySplits(const QkNormRope& run) {
  return run.rotary_dim == 0 && run.q_weight == nullptr && run.k_weight == nullptr && !run.fp8 && run.head_dim % 8 == 0;
}

// Of runs that OnlySplits(); INTERNAL when the launch was refused.
absl::Status SplitHeads(const QkNormRope& run, void* stream);
absl::Status JoinHeads(const QkNormRopeGradient& run, void* stream);

}  // namespace rein::kernels

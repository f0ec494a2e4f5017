// Gradients of attention by products of warps (mma.sync), for GPUs other than a Hopper, and there for what neither
// attention_gradient_hopper.h nor cuDNN takes. No sum is shared between blocks, so the same inputs give the same bits; the price is
// that scores are computed twice, once for the queries and once for the keys and values.

#pragma once

#include "common/kernels/attention_backward.h"

namespace rein::kernels {

// fp32 [T, H]: for each query the sum of dout out, in `delta`.
absl::Status SumOfGradients(const AttentionBackward& run, float* delta, void* stream);

// dq, dk and dv of the ranges. `delta` is of SumOfGradients(). INVALID_ARGUMENT for a head dim that no kernel takes.
absl::Status AttendBackwardByWarps(const AttentionBackward& run, const float* delta, void* stream);

// run.dsinks += - sum over tokens of exp(sink - lse) delta.
absl::Status SinkGradient(const AttentionBackward& run, const float* delta, void* stream);

}  // namespace rein::kernels

// Multi-head latent attention (MLA, arXiv 2405.04434 §2.1): keys and values are projections of one small latent
// vector of each token, and a rotated key part that all heads share.
//
// In training keys and values are expanded. In pages only [latent; rotated key] stands, and the two expanding
// projections are absorbed: into the query, and behind the weighted sum.
//
// T packed tokens, D model, H heads, L latent, N plain dims of a query head, R rotated ones, W dims of a value.

#pragma once

#include <ATen/core/Tensor.h>

#include "common/nn/attention.h"
#include "common/nn/rotary.h"
#include "common/nn/weight.h"

namespace rein::nn {

struct LatentShape {
  int64_t heads = 0;
  int64_t latent_dim = 0;  // L
  int64_t plain_dim = 0;   // N
  int64_t rotary_dim = 0;  // R
  int64_t value_dim = 0;   // W
};

struct LatentWeights {
  Weight q_down, q_norm;        // [Q, D], [Q]; undefined: q_up reads the input itself
  Weight q_up;                  // [H (N + R), Q or D]: for each head [plain; rotated]
  Weight kv_down, latent_norm;  // [L + R, D]: [latent; rotated key], [L]
  Weight kv_up;                 // [H (N + W), L]: for each head [key; value]
};

// x_TD -> what the heads attended to, [T, H W]. Differentiable unless view.pages.
at::Tensor AttendLatent(const at::Tensor& x_TD, const LatentShape& shape,
                        const LatentWeights& weights, const Rotary& rotary,
                        const SequenceView& view, int layer, const AttentionRule& rule);

}  // namespace rein::nn

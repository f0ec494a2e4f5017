// Gated delta net (arXiv 2412.06464): attention without a softmax, whose past is one matrix for each head.
//
//   S_t = exp(g_t) S_{t-1} + k_t (beta_t (v_t - exp(g_t) S_{t-1}^T k_t))^T,   o_t = S_t^T q_t
//
// Queries, keys and values pass a short causal convolution and SiLU first; queries and keys have length 1 (queries
// also times 1 / sqrt(C)). The state is fp32.
//
// T packed tokens, D model, N key heads of C dims, V value heads (a multiple of N) of W dims, J taps.

#pragma once

#include <ATen/core/Tensor.h>

#include "common/nn/sequence_view.h"
#include "common/nn/weight.h"

namespace rein::nn {

struct DeltaShape {
  int64_t key_heads = 0, value_heads = 0;
  int64_t key_dim = 0, value_dim = 0;  // of a head
  int64_t taps = 4;

  int64_t mixed_dim() const { return 2 * key_heads * key_dim + value_heads * value_dim; }  // q, k and v
};

struct DeltaWeights {
  Weight qkvz;     // [mixed_dim + V W, D]: all of q, of k, of v, of the output's gate z
  Weight ba;       // [2 V, D]: beta before its sigmoid, and the decay's input
  Weight conv;     // [mixed_dim, J]
  Weight decay_V;  // logarithm of the decay's rate
  Weight dt_bias_V;
  Weight norm_W;   // of each head's output
};

// x_TD -> [T, V W]. With view.pages the state after the last token of each page stands in key [pages, V, C, W]
// (fp32) of that page, and the last J - 1 inputs of the convolution in value [pages, mixed_dim, J - 1] (fp32): the
// state before a token is that of its page, or of the page before where it opens one. That path has no backward.
at::Tensor DeltaNet(const at::Tensor& x_TD, const DeltaShape& shape, const DeltaWeights& weights,
                    double eps, const SequenceView& view, int layer);

}  // namespace rein::nn

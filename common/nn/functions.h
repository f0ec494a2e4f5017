// The fused functions that a decoder is made of. Each has its own backward; under no-grad the forward
// alone runs, so the trainer and the generator share it. Weight gradients are added, in fp32, straight
// into Weight::grad.
//
// T packed tokens, D model, H heads, K kv heads, C head dim, F feed-forward width, V vocabulary.
// Activations are bf16 or fp32 in and out; reductions are fp32 inside. Shapes that do not fit throw
// c10::Error: callers are modules that were checked at construction.

#pragma once

#include <ATen/core/Tensor.h>

#include <functional>

#include "common/nn/weight.h"

namespace rein::nn {

// token_T int64 -> [T, D], rows of table_VD.
at::Tensor Embedding(const at::Tensor& token_T, const Weight& table_VD);

// x / sqrt(mean(x^2) + eps), cast, times weight_D; over the last dimension (arXiv 1910.07467).
at::Tensor RmsNorm(const at::Tensor& x, const Weight& weight_D, double eps);

// x_TD weight_ED^T + bias_E; the bias may be undefined.
at::Tensor Projection(const at::Tensor& x_TD, const Weight& weight_ED, const Weight& bias_E);

// Rotates pairs (i, i + C/2) of the last dimension of x_THC by the angles of each token (RoPE, arXiv
// 2104.09864, half-split pairing). cos_TC2 and sin_TC2 are fp32 [T, C/2].
at::Tensor Rotary(const at::Tensor& x_THC, const at::Tensor& cos_TC2, const at::Tensor& sin_TC2);

// silu(gate) * up, where gate_up is [T, 2F] = [gate | up] -> [T, F] (SwiGLU, arXiv 2002.05202).
at::Tensor GatedSilu(const at::Tensor& gate_up);

// Runs `block` now without keeping its intermediates and again in the backward pass.
at::Tensor Recompute(const std::function<at::Tensor(const at::Tensor&)>& block, const at::Tensor& x);

}  // namespace rein::nn

// The fused functions that a decoder is made of. Each has its own backward; under no-grad the forward
// alone runs, so the trainer and the generator share it. Weight gradients are added, in fp32, straight
// into Weight::grad.
//
// bf16 on a GPU runs the kernels of common/kernels, whose rows keep their bits whatever stands beside
// them; everything else (a CPU, fp32, odd shapes) runs the same formulas by LibTorch's operations.
//
// T packed tokens, D model, V vocabulary. Activations are bf16 or fp32 in and out;
// reductions are fp32 inside. Shapes that do not fit throw c10::Error: callers are modules that were
// checked at construction.

#pragma once

#include <ATen/core/Tensor.h>

#include <functional>

#include "common/nn/weight.h"

namespace rein::nn {

// token_T int64 -> [T, D], rows of table_VD.
at::Tensor Embedding(const at::Tensor& token_T, const Weight& table_VD);

// x_TD[index_N], any row any number of times; a row's gradients are added in the order of the index.
at::Tensor Rows(const at::Tensor& x_TD, const at::Tensor& index_N);

// x_TD weight_ED^T + bias_E, and the weight's low-rank updates; the bias may be undefined. A weight of one row too is
// summed in an order of its own, not by the number of tokens.
at::Tensor Projection(const at::Tensor& x_TD, const Weight& weight_ED, const Weight& bias_E);

// The residual stream between blocks: what was summed up, and what the last block adds.
struct Residual {
  at::Tensor x_TD, delta_TD;
};
using Block = std::function<Residual(const Residual&)>;

// Runs `block` now without keeping its intermediates and again in the backward pass.
Residual Recompute(const Block& block, const Residual& in);

}  // namespace rein::nn

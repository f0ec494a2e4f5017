// What a process reward model learns: whether each step is right.
//
// N steps. Tensors floating point [N].

#pragma once

#include <ATen/core/Tensor.h>

namespace rein::trainer {

// Cross-entropy of sigmoid(score) with a label from 0 to 1 (arXiv 2305.20050; 2312.08935, where labels are shares of
// completions that came out right): -y log sigmoid(s) - (1 - y) log sigmoid(-s). Differentiable by the scores.
at::Tensor StepLabelLoss(const at::Tensor& score_N, const at::Tensor& label_N);

}  // namespace rein::trainer

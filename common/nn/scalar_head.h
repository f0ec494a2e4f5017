// The head of reward models and critics: one number for a hidden state.
//
// N chosen positions, D model.

#pragma once

#include <ATen/core/Tensor.h>

#include "common/nn/weight.h"

namespace rein::nn {

// hidden_ND head_1D^T in fp32, whatever the dtype of the inputs: [N]. Differentiable by hidden_ND and the head.
at::Tensor ScalarHead(const at::Tensor& hidden_ND, const Weight& head_1D);

}  // namespace rein::nn

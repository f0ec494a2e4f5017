// Log-probabilities of several candidate tokens at each place, for distillation; in chunks of tokens as the head itself.
//
// N chosen positions, K candidates, D model, V vocabulary.

#pragma once

#include <ATen/core/Tensor.h>

#include "common/nn/head.h"
#include "common/nn/weight.h"

namespace rein::nn {

// fp32 [N, K]: log softmax(logits / temperature)[candidate_NK], differentiable by hidden_ND and the head. Recomputes each
// chunk's logits in the backward pass. Not of a normalised head.
at::Tensor CandidateLogprobs(const at::Tensor& hidden_ND, const Weight& head_VD,
                             const at::Tensor& candidate_NK, double temperature,
                             const HeadRule& rule = {});

}  // namespace rein::nn

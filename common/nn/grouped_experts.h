// The experts of a mixture on a GPU: rows sorted by expert go through all experts at once, and nothing waits for the host.
//
// A row keeps its bits whatever stands beside it: a group's product is one chain over the inner dimension, and a token's
// experts are added in the order in which they were chosen. Equal batches give equal gradients.

#pragma once

#include <ATen/core/Tensor.h>

#include "common/nn/experts.h"

namespace rein::nn {

// bf16 on a GPU, with widths that are multiples of 8 and without low-rank updates.
bool GroupedExpertsTake(const at::Tensor& x_TD, const ExpertWeights& weights);

// [T, D] as MixtureOfExperts() gives it, after the choice.
at::Tensor GroupedExperts(const at::Tensor& x_TD, const Choice& choice, const ExpertWeights& weights, const Gate& gate);

// fp32 [T, E]: x router^T. The products and their sum are fp32; on a GPU with a row's bits kept.
at::Tensor RouterLogits(const at::Tensor& x_TD, const ExpertWeights& weights);

}  // namespace rein::nn

// The language-model head: hidden states to logits, log-probabilities and entropy, in chunks of tokens,
// so that [tokens, vocabulary] in fp32 never stands in memory.
//
// N chosen positions, D model, V vocabulary.

#pragma once

#include <ATen/core/Tensor.h>

#include "common/nn/weight.h"

namespace rein::nn {

// What stands between the product with the head and the logits.
struct HeadRule {
  double multiplier = 1;    // logits * multiplier
  double softcap = 0;       // above 0: cap tanh(logits / cap); not together with a multiplier
  bool normalised = false;  // rows of the head are divided by their length first
};

struct TokenLogprobs {
  at::Tensor logprob_N;  // fp32: log softmax(logits / temperature)[target]
  at::Tensor entropy_N;  // fp32: of the same distribution, nats
};

// Differentiable by hidden_ND and the head through both outputs. head_VD may be the (tied) embedding.
// Recomputes each chunk's logits in the backward pass, except on a GPU where all of them in bf16 take less
// than kKeptLogitBytes: there they are kept and become their own gradient.
TokenLogprobs HeadLogprobs(const at::Tensor& hidden_ND, const Weight& head_VD,
                           const at::Tensor& target_N, double temperature,
                           const HeadRule& rule = {});

// The same of logits that are there already: bf16 [N, V] on a GPU, not changed; no backward.
TokenLogprobs TokenLogprobsOfLogits(const at::Tensor& logits_NV, const at::Tensor& target_N,
                                    double temperature);

inline constexpr int64_t kKeptLogitBytes = int64_t{6} << 30;

// [N, V] logits for sampling, in the dtype of the head; no backward.
at::Tensor HeadLogits(const at::Tensor& hidden_ND, const Weight& head_VD, const HeadRule& rule = {});

}  // namespace rein::nn

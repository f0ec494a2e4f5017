// How likely the policy makes what the old policy did: for each token, or for a completion as a whole.
//
// T target tokens. Tensors are floating point [T].

#pragma once

#include <ATen/core/Tensor.h>

#include "trainer/losses/segments.h"

namespace rein::trainer {

enum class RatioLevel {
  kToken,      // PPO, GRPO
  kSequence,   // GSPO
  kGeometric,  // GMPO; see geometric_surrogate.h
};

// clamp(policy - old, -20, 20) (verl; slime and TRL do not clamp).
at::Tensor TokenLogRatio(const at::Tensor& policy_logprob_T, const at::Tensor& old_logprob_T);

// GSPO (arXiv 2507.18071; verl compute_policy_loss_gspo): every token of sequence i gets
//   s_i = mean over its tokens of (policy - old),   at most 10
// with the gradient of its own log-prob, so that token losses averaged over the sequence have the gradient
// of the sequence ratio exp(s_i) itself.
at::Tensor SequenceLogRatio(const at::Tensor& policy_logprob_T, const at::Tensor& old_logprob_T,
                            const Segments& segments);

}  // namespace rein::trainer

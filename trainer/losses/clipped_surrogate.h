// The clipped policy-gradient objective of PPO and its relatives.
//
// T target tokens. All tensors floating point [T]; the advantage is constant within a completion.

#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

namespace rein::trainer {

struct ClipRange {
  double low = 0.2;            // ratio counts down to 1 - low
  double high = 0.2;           // ratio counts up to 1 + high ("clip higher": DAPO, arXiv 2503.14476)
  std::optional<double> dual;  // for A < 0 the loss stops at this ratio (arXiv 1912.09729)
};

struct SurrogateLoss {
  at::Tensor loss_T;        // differentiable by policy_logprob_T
  at::Tensor ratio_T;       // detached, like all below
  at::Tensor clipped_T;     // 1 where the clip is active
  at::Tensor dual_T;        // 1 where the dual clip is active; all 0 without one
};

// PPO (arXiv 1707.06347; verl compute_policy_loss_vanilla):
//   d = clamp(policy - old, -20, 20),  r = exp(d)
//   l = max(-A r, -A clamp(r, 1 - low, 1 + high));  with a dual clip, where A < 0: min(l, -A dual)
SurrogateLoss ClippedSurrogate(const at::Tensor& policy_logprob_T, const at::Tensor& old_logprob_T,
                               const at::Tensor& advantage_T, const ClipRange& clip);

}  // namespace rein::trainer

// The clipped policy-gradient objective of PPO and its relatives.
//
// T target tokens. All tensors floating point [T].

#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

#include "trainer/losses/surrogate.h"

namespace rein::trainer {

struct ClipRange {
  double low = 0.2;            // ratio counts down to 1 - low
  double high = 0.2;           // ratio counts up to 1 + high ("clip higher": DAPO, arXiv 2503.14476)
  std::optional<double> dual;  // for A < 0 the loss stops at this ratio (arXiv 1912.09729)
  std::optional<double> cap;   // the unclipped ratio counts at most so much (two-sided clip: INTELLECT-2,
                               // arXiv 2505.07291; TRL delta)
};

// PPO (arXiv 1707.06347; verl compute_policy_loss_vanilla), with r = exp(log_ratio), see ratio.h:
//   l = max(-A min(r, cap), -A clamp(r, 1 - low, 1 + high));  with a dual clip, where A < 0: min(l, -A dual)
SurrogateLoss ClippedSurrogate(const at::Tensor& log_ratio_T, const at::Tensor& advantage_T,
                               const ClipRange& clip);

}  // namespace rein::trainer

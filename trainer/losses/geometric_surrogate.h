// The objective of GMPO: clipped token by token, then one geometric mean for each completion.

#pragma once

#include <ATen/core/Tensor.h>

#include "trainer/losses/segments.h"
#include "trainer/losses/surrogate.h"

namespace rein::trainer {

struct LogClip {
  double low = 0.4;   // log-ratio counts down to -low
  double high = 0.4;  // and up to high
};

// GMPO (arXiv 2507.20673; verl compute_policy_loss_geo_mean), T target tokens of S sequences:
//   k = sgn(A) min(sgn(A) d, sgn(A) clamp(d, -low, high)),   d = policy - old, not clamped
//   rho_i = exp(mean of k over sequence i),   l = -A rho_i for each of its tokens
// with the gradient of its own k. Aggregated by kSequenceMean this is mean_i(-A_i rho_i) and its gradient.
// verl divides by all rows, also those without targets; here these do not count. The advantage is constant
// within a sequence.
SurrogateLoss GeometricSurrogate(const at::Tensor& policy_logprob_T,
                                 const at::Tensor& old_logprob_T, const at::Tensor& advantage_T,
                                 const LogClip& clip, const Segments& segments);

}  // namespace rein::trainer

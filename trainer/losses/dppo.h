// Policy gradient that leaves out tokens whose probability has moved too far, by a divergence instead of
// a ratio.

#pragma once

#include <ATen/core/Tensor.h>

#include "trainer/losses/surrogate.h"

namespace rein::trainer {

enum class Divergence { kTotalVariation, kKl };

struct DivergenceMask {
  Divergence divergence = Divergence::kTotalVariation;
  double low = 0.15;       // bound where A <= 0
  double high = 0.15;      // bound where A > 0
  double ratio_cap = 20;   // of the weight
};

// DPPO (arXiv 2602.04879; verl compute_policy_loss_dppo_tv and _dppo_kl), T target tokens, with
// p = exp(policy), q = exp(old):
//   TV: keep where A > 0 ? p - q <= high : p - q >= -low
//   KL: b = q (old - policy) + (1 - q) log((1 - q + 1e-8) / (1 - p + 1e-8));  keep where b is at most the
//       bound, or the move is towards q (A > 0 ? p <= q : p >= q)
//   l = -A sg(min(exp(clamp(policy - old, -20, 20)), ratio_cap)) policy keep
// The clip figures tell the tokens that are left out.
SurrogateLoss DivergenceMasked(const at::Tensor& policy_logprob_T, const at::Tensor& old_logprob_T,
                               const at::Tensor& advantage_T, const DivergenceMask& mask);

}  // namespace rein::trainer

#include "trainer/losses/dppo.h"

#include <ATen/ATen.h>

#include "trainer/losses/ratio.h"

namespace rein::trainer {
namespace {

at::Tensor Keep(const at::Tensor& policy_T, const at::Tensor& old_T, const at::Tensor& positive_T,
                const DivergenceMask& mask) {
  at::Tensor p_T = policy_T.exp(), q_T = old_T.exp();
  at::Tensor move_T = p_T - q_T;
  if (mask.divergence == Divergence::kTotalVariation) {
    return at::where(positive_T, move_T.le(mask.high), move_T.ge(-mask.low));
  }
  at::Tensor kl_T =
      q_T * (old_T - policy_T) + (1 - q_T) * ((1 - q_T + 1e-8) / (1 - p_T + 1e-8)).log();
  at::Tensor near_T = at::where(positive_T, kl_T.le(mask.high), kl_T.le(mask.low));
  at::Tensor back_T = at::where(positive_T, move_T.le(0), move_T.ge(0));
  return near_T.logical_or(back_T);
}

}  // namespace

SurrogateLoss DivergenceMasked(const at::Tensor& policy_logprob_T, const at::Tensor& old_logprob_T,
                               const at::Tensor& advantage_T, const DivergenceMask& mask) {
  at::Tensor policy_T = policy_logprob_T.detach();
  at::Tensor positive_T = advantage_T.gt(0);
  at::Tensor keep_T = Keep(policy_T, old_logprob_T, positive_T, mask);
  SurrogateLoss out;
  out.ratio_T = TokenLogRatio(policy_T, old_logprob_T).exp();
  out.loss_T = -advantage_T * out.ratio_T.clamp_max(mask.ratio_cap) * policy_logprob_T *
               keep_T.to(policy_T.scalar_type());
  at::Tensor left_out_T = keep_T.logical_not();
  out.clipped_low_T =
      left_out_T.logical_and(positive_T.logical_not()).to(policy_T.scalar_type());
  out.clipped_high_T = left_out_T.logical_and(positive_T).to(policy_T.scalar_type());
  return out;
}

}  // namespace rein::trainer

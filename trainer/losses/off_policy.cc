#include "trainer/losses/off_policy.h"

#include <ATen/ATen.h>

#include <cmath>
#include <limits>

namespace rein::trainer {

at::Tensor ImportanceWeight(const at::Tensor& x_T, const Segments& segments,
                            const ImportanceCorrection& correction) {
  at::Tensor x = x_T.detach();
  if (correction.level == WeightLevel::kSequence) x = SpreadOver(SumOf(x, segments), segments);
  at::Tensor weight = x.clamp(-20, 20).exp();
  if (!correction.mask) return weight.clamp_max(correction.high);
  at::Tensor inside = weight.le(correction.high);
  if (correction.low.has_value()) inside = inside.logical_and(weight.ge(*correction.low));
  return weight * inside.to(weight.scalar_type());
}

namespace {

at::Tensor MaxOf(const at::Tensor& x_T, const Segments& segments) {
  return at::segment_reduce(x_T.contiguous(), "max", segments.length_S, {}, {}, 0, /*unsafe=*/true,
                            -std::numeric_limits<double>::infinity());
}

}  // namespace

at::Tensor RejectionMask(const at::Tensor& x_T, const Segments& segments,
                         const Rejection& rejection) {
  using S = RejectionStatistic;
  const S statistic = rejection.statistic;
  at::Tensor x = x_T.detach().clamp(-20, 20);
  const int form = static_cast<int>(statistic) % 3;  // the enum lists k1, k2, k3 of each reduction
  at::Tensor k = form == 0 ? -x : form == 1 ? x.square() / 2 : x.expm1() - x;
  if (statistic >= S::kSequenceMaxK1) {
    k = SpreadOver(MaxOf(k, segments), segments);
  } else if (statistic >= S::kSequenceMeanK1) {
    k = SpreadOver(MeanOf(k, segments), segments);
  } else if (statistic >= S::kSequenceSumK1) {
    k = SpreadOver(SumOf(k, segments), segments);
  }
  at::Tensor keep = k.le(form == 0 ? std::log(rejection.high) : rejection.high);
  if (form == 0 && rejection.low.has_value()) keep = keep.logical_and(k.ge(std::log(*rejection.low)));
  return keep.to(x.scalar_type());
}

at::Tensor NegativeSequenceMask(const at::Tensor& policy_logprob_T,
                                const at::Tensor& behaviour_logprob_T,
                                const at::Tensor& advantage_T, const Segments& segments,
                                double delta) {
  at::Tensor drift = MeanOf(behaviour_logprob_T - policy_logprob_T.detach(), segments);
  at::Tensor off = SpreadOver(drift, segments).gt(delta).logical_and(advantage_T.lt(0));
  return off.logical_not().to(policy_logprob_T.scalar_type());
}

OffPolicyFigures MeasureOffPolicy(const at::Tensor& x_T, double weight_cap) {
  at::Tensor x = x_T.detach().clamp(-20, 20);
  at::Tensor weight = x.exp().clamp_max(weight_cap);
  return {-x,       x.expm1() - x, x.abs(), x.abs().exp(), (2 * x).exp(),
          weight,   weight.square()};
}

double EffectiveSampleShare(double mean_weight, double mean_weight_square) {
  return mean_weight_square > 0 ? mean_weight * mean_weight / mean_weight_square : 1;
}

}  // namespace rein::trainer

#include "trainer/algorithms/policy_gradient.h"

#include <ATen/ATen.h>

#include "trainer/losses/geometric_surrogate.h"
#include "trainer/losses/reinforce.h"

namespace rein::trainer {
namespace {

using Settings = PolicyGradientSettings;

constexpr double kRoundingLogprob = 1e-5;

SurrogateLoss Objective(const Settings& s, const LossInputs& in) {
  const at::Tensor &policy = in.policy_logprob_T, &old = in.old_logprob_T, &a = in.advantage_T;
  if (s.ratio == RatioLevel::kGeometric) {
    const ClipRange& clip = std::get<ClipRange>(s.surrogate);
    return GeometricSurrogate(policy, old, a, {clip.low, clip.high}, in.segments);
  }
  at::Tensor log_ratio_T = s.ratio == RatioLevel::kSequence
                               ? SequenceLogRatio(policy, old, in.segments)
                               : TokenLogRatio(policy, old);
  struct Visitor {
    const LossInputs& in;
    const at::Tensor& log_ratio_T;
    SurrogateLoss operator()(const ClipRange& clip) const {
      return ClippedSurrogate(log_ratio_T, in.advantage_T, clip);
    }
    SurrogateLoss operator()(const WeightRange& range) const {
      return Cispo(in.policy_logprob_T, log_ratio_T, in.advantage_T, range);
    }
    SurrogateLoss operator()(const SoftGate& gate) const {
      return SoftGated(log_ratio_T, in.advantage_T, gate);
    }
    SurrogateLoss operator()(const DivergenceMask& mask) const {
      return DivergenceMasked(in.policy_logprob_T, in.old_logprob_T, in.advantage_T, mask);
    }
    SurrogateLoss operator()(const OutsideLossSettings&) const { return {}; }
    SurrogateLoss operator()(const PlainGradient&) const {
      return Reinforce(in.policy_logprob_T, log_ratio_T, in.advantage_T);
    }
  };
  return std::visit(Visitor{in, log_ratio_T}, s.surrogate);
}

// What the surrogate's token losses are multiplied with; undefined: nothing.
at::Tensor Correction(const Settings& s, const LossInputs& in) {
  at::Tensor factor_T;
  auto multiply = [&](const at::Tensor& x) { factor_T = factor_T.defined() ? factor_T * x : x; };
  at::Tensor proximal_T = s.recompute_old ? in.old_logprob_T : in.policy_logprob_T.detach();
  at::Tensor x_T = proximal_T - in.behaviour_logprob_T;
  if (s.correction) multiply(ImportanceWeight(x_T, in.segments, *s.correction));
  if (s.rejection) multiply(RejectionMask(x_T, in.segments, *s.rejection));
  if (s.mask_negative_above) {
    multiply(NegativeSequenceMask(in.policy_logprob_T, in.behaviour_logprob_T, in.advantage_T,
                                  in.segments, *s.mask_negative_above));
  }
  return factor_T;
}

bool KlInLoss(const Settings& s) { return s.kl.coefficient > 0 && !s.kl.in_reward; }
bool Corrects(const Settings& s) { return s.correction || s.rejection || s.mask_negative_above; }

// The order of the figures in Terms(); the last ones are there only when they mean something.
std::vector<std::string> TokenMeanNames(const Settings& s) {
  std::vector<std::string> names = {
      "policy_loss", "clip_ratio_low",  "clip_ratio_high",   "ratio_mean",  "entropy",
      "approx_kl",   "approx_kl_k1",    "logprob_diff_mean", "token_mult_prob_error",
      "",            "",                "" /* of the derived figures */};
  const auto* clip = std::get_if<ClipRange>(&s.surrogate);
  if (clip != nullptr && clip->dual) names.push_back("clip_ratio_dual");
  if (Corrects(s)) names.push_back("correction_mean");
  if (s.clip_cov || s.kl_cov) names.push_back("selected_ratio");
  if (KlInLoss(s)) names.push_back("reference_kl");
  return names;
}

LossTerms Terms(const Settings& s, const LossInputs& in) {
  SurrogateLoss surrogate = Objective(s, in);
  LossTerms terms;
  terms.loss_T = surrogate.loss_T;
  at::Tensor drift_T = (in.policy_logprob_T - in.behaviour_logprob_T).detach();
  OffPolicyFigures off = MeasureOffPolicy(drift_T);
  terms.token_means = {surrogate.loss_T.detach(), surrogate.clipped_low_T, surrogate.clipped_high_T,
                       surrogate.ratio_T, in.entropy_T.detach(), off.k3_T, off.k1_T, off.abs_T,
                       off.mult_T, off.square_T, off.weight_T, off.weight_square_T};
  terms.token_maxima = {surrogate.ratio_T, off.abs_T};
  if (surrogate.dual_T.defined()) terms.token_means.push_back(surrogate.dual_T);
  if (at::Tensor factor_T = Correction(s, in); factor_T.defined()) {
    terms.loss_T = terms.loss_T * factor_T;
    terms.token_means.push_back(factor_T);
  }
  if (s.clip_cov || s.kl_cov) {
    // verl compute_policy_loss_clip_cov and _kl_cov. Rounding is no distance: on policy the gradient of |x| would be
    // its sign.
    auto distance_T = [&] {
      return ((in.policy_logprob_T - in.old_logprob_T).abs() - kRoundingLogprob).clamp_min(0);
    };
    terms.loss_T = s.clip_cov ? terms.loss_T * (1 - in.selected_T)
                              : terms.loss_T + in.selected_T * s.kl_cov_coefficient * distance_T();
    terms.token_means.push_back(in.selected_T);
  }
  if (KlInLoss(s)) {
    at::Tensor kl_T = Kl(in.policy_logprob_T, in.reference_logprob_T, s.kl_estimator);
    terms.token_means.push_back(kl_T.detach());
    if (s.kl_importance_weighted) {
      kl_T = ImportanceWeightedKl(kl_T, TokenLogRatio(in.policy_logprob_T, in.behaviour_logprob_T));
    }
    terms.loss_T = terms.loss_T + in.kl_coefficient * kl_T;
  }
  if (s.entropy_coefficient != 0) {
    terms.loss_T = terms.loss_T - s.entropy_coefficient * in.entropy_T;
  }
  return terms;
}

// What is reported of a loss from outside, and the sum whose gradient is that of the loss.
LossTerms OutsideTerms(const LossInputs& in) {
  LossTerms terms;
  terms.loss_T = in.policy_logprob_T * in.logprob_gradient_T;
  if (in.entropy_gradient_T.defined()) terms.loss_T = terms.loss_T + in.entropy_T * in.entropy_gradient_T;
  OffPolicyFigures off = MeasureOffPolicy((in.policy_logprob_T - in.behaviour_logprob_T).detach());
  terms.token_means = {in.entropy_T.detach(), off.k3_T, off.k1_T, off.abs_T};
  terms.token_maxima = {off.abs_T};
  return terms;
}

// The derivatives are of the whole loss: nothing is averaged, corrected or added here.
Algorithm OutsideGradient(const Settings& s) {
  Algorithm algorithm;
  algorithm.name = s.name;
  algorithm.temperature = s.temperature;
  algorithm.epochs = s.epochs;
  algorithm.minibatches = s.minibatches;
  algorithm.mask_truncated = s.mask_truncated;
  algorithm.aggregation = Aggregation::kTokenSum;
  algorithm.needs_behaviour = true;
  algorithm.needs_reference = s.kl.coefficient > 0;
  algorithm.kl = s.kl;
  algorithm.advantage = s.advantage;
  algorithm.critic = s.critic;
  algorithm.outside = std::get<OutsideLossSettings>(s.surrogate);
  algorithm.token_mean_names = {"entropy", "approx_kl", "approx_kl_k1", "logprob_diff_mean"};
  algorithm.token_max_names = {"logprob_diff_max"};
  algorithm.loss = OutsideTerms;
  return algorithm;
}

}  // namespace

Algorithm PolicyGradient(const Settings& s) {
  if (std::holds_alternative<OutsideLossSettings>(s.surrogate)) return OutsideGradient(s);
  Algorithm algorithm;
  algorithm.name = s.name;
  algorithm.temperature = s.temperature;
  algorithm.epochs = s.epochs;
  algorithm.minibatches = s.minibatches;
  algorithm.mask_truncated = s.mask_truncated;
  algorithm.aggregation = s.aggregation;
  algorithm.horizon = s.horizon;
  algorithm.needs_behaviour = true;
  algorithm.needs_reference = s.kl.coefficient > 0;
  algorithm.recomputes_old = s.recompute_old;
  algorithm.skips_zero_advantage = !KlInLoss(s) && s.entropy_coefficient == 0 && !s.kl_cov;
  algorithm.selection = s.clip_cov ? s.clip_cov : s.kl_cov;
  algorithm.kl = s.kl;
  algorithm.advantage = s.advantage;
  algorithm.critic = s.critic;
  algorithm.token_mean_names = TokenMeanNames(s);
  algorithm.token_max_names = {"ratio_max", "logprob_diff_max"};
  algorithm.derived = [](const std::vector<double>& mean) {
    return std::vector<Metric>{{"chi_square", mean[9] - 1},
                               {"effective_sample_ratio", EffectiveSampleShare(mean[10], mean[11])}};
  };
  algorithm.loss = [s](const LossInputs& in) { return Terms(s, in); };
  return algorithm;
}

}  // namespace rein::trainer

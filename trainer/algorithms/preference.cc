// Preference optimisation: pairs of a chosen and a rejected completion, or single marked ones.

#include <ATen/ATen.h>

#include <algorithm>

#include "trainer/algorithms/algorithm.h"
#include "trainer/losses/orpo.h"

namespace rein::trainer {
namespace {

// Every second entry, from `first` on: the chosen (0) or the rejected (1) ones.
at::Tensor Every(const at::Tensor& x_S, int64_t first) {
  return x_S.slice(0, first, std::nullopt, 2);
}

PairLogprobs PairsOf(const LossInputs& in) {
  at::Tensor sum_S = SumOf(in.policy_logprob_T, in.segments);
  at::Tensor tokens_S = in.segments.length_S.to(sum_S.scalar_type());
  PairLogprobs pairs{Every(sum_S, 0), Every(sum_S, 1), {}, {}, Every(tokens_S, 0), Every(tokens_S, 1)};
  if (in.reference_logprob_T.defined()) {
    at::Tensor reference_S = SumOf(in.reference_logprob_T, in.segments);
    pairs.reference_chosen_P = Every(reference_S, 0);
    pairs.reference_rejected_P = Every(reference_S, 1);
  }
  return pairs;
}

at::Tensor ForBoth(const at::Tensor& x_P) { return x_P.repeat_interleave(2); }

// Token losses that add up to each sequence's, so that kSequenceSum makes their mean.
at::Tensor OverTokens(const at::Tensor& loss_S, const Segments& segments) {
  return SpreadOver(loss_S / segments.length_S, segments);
}

template <typename Loss>
Algorithm OfPairs(const std::string& name, const Loss& loss) {
  Algorithm algorithm;
  algorithm.name = name;
  algorithm.pairs = true;
  algorithm.aggregation = Aggregation::kSequenceSum;
  algorithm.token_mean_names = {"entropy"};
  algorithm.sequence_mean_names = {"accuracy", "chosen_reward", "rejected_reward", "reward_margin",
                                   "chosen_logprob", "rejected_logprob"};
  algorithm.loss = [loss](const LossInputs& in) {
    const PairLogprobs pairs = PairsOf(in);
    const PairLoss out = loss(pairs);
    LossTerms terms;
    terms.loss_T = OverTokens(ForBoth(out.loss_P), in.segments);
    terms.token_means = {in.entropy_T.detach()};
    at::Tensor margin_P = out.chosen_reward_P - out.rejected_reward_P;
    for (const at::Tensor& figure_P :
         {margin_P.gt(0).to(margin_P.scalar_type()), out.chosen_reward_P, out.rejected_reward_P,
          margin_P, pairs.chosen_P.detach(), pairs.rejected_P.detach()}) {
      terms.sequence_means.push_back(ForBoth(figure_P));
    }
    return terms;
  };
  return algorithm;
}

}  // namespace

Algorithm DirectPreference(const DpoSettings& settings, bool reference_free) {
  Algorithm dpo = OfPairs("dpo", [settings](const PairLogprobs& pairs) { return Dpo(pairs, settings); });
  dpo.frozen_reference = !reference_free;
  return dpo;
}

Algorithm SimplePreference(const SimpoSettings& settings) {
  return OfPairs("simpo", [settings](const PairLogprobs& pairs) { return Simpo(pairs, settings); });
}

Algorithm OddsRatioPreference(double beta) {
  return OfPairs("orpo", [beta](const PairLogprobs& pairs) { return Orpo(pairs, beta); });
}

Algorithm MarkedPreference(const KtoSettings& settings) {
  Algorithm kto;
  kto.name = "kto";
  kto.frozen_reference = true;
  kto.needs_mismatch_kl = true;
  kto.aggregation = Aggregation::kSequenceSum;
  kto.token_mean_names = {"entropy"};
  kto.sequence_mean_names = {"", "", "good_share"};
  kto.derived = [](const std::vector<double>& mean) {  // entropy, then the three above
    const double good = std::max(mean[3], 1e-12), bad = std::max(1 - mean[3], 1e-12);
    return std::vector<Metric>{{"good_reward", mean[1] / good}, {"bad_reward", mean[2] / bad}};
  };
  kto.loss = [settings](const LossInputs& in) {
    KtoLoss out = Kto(SumOf(in.policy_logprob_T, in.segments),
                      SumOf(in.reference_logprob_T, in.segments), in.label_S, in.mismatch_kl, settings);
    LossTerms terms;
    terms.loss_T = OverTokens(out.loss_S, in.segments);
    terms.token_means = {in.entropy_T.detach()};
    at::Tensor good_S = in.label_S.gt(0).to(out.reward_S.scalar_type());
    terms.sequence_means = {out.reward_S * good_S, out.reward_S * (1 - good_S), good_S};
    return terms;
  };
  return kto;
}

}  // namespace rein::trainer

// Reward models: from pairs, the score of the chosen completion is to exceed that of the rejected one; from numbers; from
// labels of steps.

#include <ATen/ATen.h>

#include "trainer/algorithms/algorithm.h"
#include "trainer/losses/bradley_terry.h"
#include "trainer/losses/step_labels.h"

namespace rein::trainer {
namespace {

Algorithm ScalarModel() {
  Algorithm model;
  model.name = "reward_model";
  model.scalar_head = true;
  return model;
}

}  // namespace

Algorithm RewardModel(double center_coefficient) {
  Algorithm model = ScalarModel();
  model.pairs = true;
  model.aggregation = Aggregation::kSequenceSum;
  model.sequence_mean_names = {"accuracy", "score_margin", "score"};
  model.loss = [center_coefficient](const LossInputs& in) {
    auto every = [](const at::Tensor& x_S, int64_t first) { return x_S.slice(0, first, std::nullopt, 2); };
    at::Tensor chosen_P = every(in.score_S, 0), rejected_P = every(in.score_S, 1);
    BradleyTerryLoss out = BradleyTerry(chosen_P, rejected_P, every(in.label_S, 0));
    LossTerms terms;
    // Each of the two carries the pair's loss: their mean is that of the pairs.
    terms.loss_T = (out.loss_P + center_coefficient * out.center_P).repeat_interleave(2);
    at::Tensor margin_P = (chosen_P - rejected_P).detach();
    terms.sequence_means = {margin_P.gt(0).to(margin_P.scalar_type()).repeat_interleave(2),
                            margin_P.repeat_interleave(2), in.score_S.detach()};
    return terms;
  };
  return model;
}

Algorithm ScoreModel() {
  Algorithm model = ScalarModel();
  model.aggregation = Aggregation::kSequenceSum;
  model.sequence_mean_names = {"absolute_error", "score"};
  model.loss = [](const LossInputs& in) {
    at::Tensor error_S = in.score_S - in.label_S;
    LossTerms terms;
    terms.loss_T = error_S.square();
    terms.sequence_means = {error_S.detach().abs(), in.score_S.detach()};
    return terms;
  };
  return model;
}

Algorithm ProcessRewardModel() {
  Algorithm model = ScalarModel();
  model.scores_targets = true;
  model.aggregation = Aggregation::kTokenMean;
  model.token_mean_names = {"accuracy", "score"};
  model.loss = [](const LossInputs& in) {
    LossTerms terms;
    terms.loss_T = StepLabelLoss(in.score_T, in.label_T);
    at::Tensor score_T = in.score_T.detach();
    terms.token_means = {score_T.gt(0).eq(in.label_T.gt(0.5)).to(score_T.scalar_type()), score_T.sigmoid()};
    return terms;
  };
  return model;
}

}  // namespace rein::trainer

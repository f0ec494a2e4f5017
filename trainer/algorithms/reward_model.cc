// A reward model from pairs: the score of the chosen completion is to exceed that of the rejected one.

#include <ATen/ATen.h>

#include "trainer/algorithms/algorithm.h"
#include "trainer/losses/bradley_terry.h"

namespace rein::trainer {

Algorithm RewardModel(double center_coefficient) {
  Algorithm model;
  model.name = "reward_model";
  model.pairs = true;
  model.scalar_head = true;
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

}  // namespace rein::trainer

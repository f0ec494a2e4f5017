#include "trainer/critic.h"

#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "common/status/status_macros.h"
#include "common/tensor/transfer.h"
#include "trainer/losses/value_loss.h"
#include "trainer/packed_targets.h"

namespace rein::trainer {

absl::Status CriticSums::ReduceOver(parallel::ProcessGroup& group) {
  if (group.size() == 1) return absl::OkStatus();
  at::Tensor sums = at::tensor({loss, clipped, tokens}, at::kDouble);
  REIN_RETURN_IF_ERROR(group.AllReduceSum(sums));
  const auto* value = sums.const_data_ptr<double>();
  loss = value[0];
  clipped = value[1];
  tokens = value[2];
  return absl::OkStatus();
}

double ExplainedVariance(const UpdateBatch& batch) {
  double n = 0, sum = 0, squares = 0, error = 0, error_squares = 0;
  for (size_t i = 0; i < batch.returns.size(); ++i) {
    for (size_t t = 0; t < batch.returns[i].size(); ++t) {
      const double target = batch.returns[i][t], gap = target - batch.values[i][t];
      n += 1;
      sum += target;
      squares += target * target;
      error += gap;
      error_squares += gap * gap;
    }
  }
  const double spread = n * squares - sum * sum;
  return spread > 1e-12 ? 1 - (n * error_squares - error * error) / spread : 0;
}

absl::StatusOr<std::unique_ptr<Critic>> Critic::Create(const CriticSettings& settings,
                                                       const ParameterSource& source,
                                                       const std::string& device,
                                                       const std::string& dtype,
                                                       const OptimizerPlacement& placement,
                                                       parallel::ProcessGroup& group) {
  absl::StatusOr<std::unique_ptr<ParameterSet>> parameters =
      ParameterSet::Create(source, device, dtype, placement, group);
  if (!parameters.ok()) {
    return absl::Status(parameters.status().code(),
                        absl::StrCat("critic: ", parameters.status().message()));
  }
  return std::unique_ptr<Critic>(new Critic(settings, *std::move(parameters)));
}

absl::Status Critic::Values(const std::vector<TrainingSequence>& sequences,
                            const std::vector<size_t>& members,
                            std::vector<std::vector<float>>* values) const {
  at::NoGradGuard no_grad;
  const PackedTargets packed = PackTargets(sequences, members, parameters_->model().spec.shares_prompts());
  if (packed.target.empty()) return absl::OkStatus();
  at::Tensor value_N = ScoresAt(parameters_->decoder(), packed, packed.source, /*recompute=*/false);
  return SplitTargets(value_N, packed, sequences, members, "value", values);
}

absl::Status Critic::Accumulate(const UpdateBatch& batch, const Algorithm& algorithm,
                                const std::vector<size_t>& members, bool recompute,
                                CriticSums* sums) {
  const PackedTargets packed = PackTargets(batch.sequences, members, parameters_->model().spec.shares_prompts());
  if (packed.target.empty()) return absl::OkStatus();
  at::Tensor value_N = ScoresAt(parameters_->decoder(), packed, packed.source, recompute);
  auto on_device = [&](const TokenRows& rows) {
    std::vector<float> flat;
    for (size_t i : members) flat.insert(flat.end(), rows[i].begin(), rows[i].end());
    return tensor::ToDevice(at::tensor(flat, at::kFloat), value_N.device());
  };
  ValueLoss out =
      ClippedValueLoss(value_N, on_device(batch.values), on_device(batch.returns), settings_.clip);
  at::Tensor loss =
      (out.loss_T * tensor::ToDevice(LossWeights(batch, algorithm, members), value_N.device())).sum();
  const double value = loss.item<double>();
  if (!std::isfinite(value)) {
    return absl::AbortedError(absl::StrCat("value loss is not finite: ", value,
                                           " in the microbatch that opens with rollout ",
                                           batch.sequences[members[0]].id));
  }
  loss.backward();
  sums->loss += value;
  sums->clipped += out.clipped_T.sum().item<double>();
  sums->tokens += static_cast<double>(packed.target.size());
  return absl::OkStatus();
}

}  // namespace rein::trainer

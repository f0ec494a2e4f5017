#include "trainer/outside_loss.h"

#include <cmath>
#include <string>
#include <vector>

#include <ATen/ATen.h>
#include "absl/strings/str_cat.h"

#include "common/status/status_macros.h"
#include "trainer/training_sequence.h"

namespace rein::trainer {
namespace {

using Rows = std::vector<std::vector<float>>;

// `optional`: rows may be empty, which counts as zeros; they are filled in.
absl::Status CheckRows(const std::string& what, const OutsideBatch& batch, bool optional, Rows* rows) {
  if (rows->empty() && optional) rows->resize(batch.sequences.size());
  if (rows->size() != batch.sequences.size()) {
    return absl::AbortedError(absl::StrCat("the loss service gave ", what, " of ", rows->size(), " sequences, want ",
                                           batch.sequences.size()));
  }
  for (size_t i = 0; i < rows->size(); ++i) {
    std::vector<float>& row = (*rows)[i];
    const size_t targets = batch.policy_logprobs[i].size();
    if (row.empty() && optional) row.assign(targets, 0);
    if (row.size() != targets) {
      return absl::AbortedError(absl::StrCat("the loss service gave ", row.size(), " ", what, " for the ", targets,
                                             " targets of rollout ", batch.sequences[i]->id));
    }
    for (size_t t = 0; t < targets; ++t) {
      if (std::isfinite(row[t])) continue;
      return absl::AbortedError(absl::StrCat("the loss service gave ", row[t], " among the ", what, " of rollout ",
                                             batch.sequences[i]->id, ", target ", t));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<OutsideLoss> Checked(const OutsideLossSettings& settings, const OutsideBatch& batch) {
  if (!settings.evaluate) return absl::FailedPreconditionError("the loss of a service is not to be had here");
  REIN_ASSIGN_OR_RETURN(OutsideLoss answer, settings.evaluate(batch));
  if (!std::isfinite(answer.loss)) {
    return absl::AbortedError(absl::StrCat("the loss service gave the loss ", answer.loss));
  }
  REIN_RETURN_IF_ERROR(CheckRows("logprob derivatives", batch, /*optional=*/false, &answer.logprob_gradients));
  if (settings.entropies) {
    REIN_RETURN_IF_ERROR(CheckRows("entropy derivatives", batch, /*optional=*/true, &answer.entropy_gradients));
    return answer;
  }
  for (const std::vector<float>& row : answer.entropy_gradients) {
    if (!row.empty()) {
      return absl::AbortedError("the loss service gave entropy derivatives, and service.entropies is false");
    }
  }
  answer.entropy_gradients.clear();
  return answer;
}

// Rank 0's rows at every rank.
absl::Status Share(parallel::ProcessGroup& group, const OutsideBatch& batch, Rows* rows) {
  std::vector<float> flat;
  for (size_t i = 0; i < batch.policy_logprobs.size(); ++i) {
    std::vector<float> row = i < rows->size() ? (*rows)[i] : std::vector<float>();
    row.resize(batch.policy_logprobs[i].size(), 0);
    flat.insert(flat.end(), row.begin(), row.end());
  }
  at::Tensor sum = at::tensor(flat, at::kFloat);
  REIN_RETURN_IF_ERROR(group.AllReduceSum(sum));
  const auto* value = sum.const_data_ptr<float>();
  rows->resize(batch.policy_logprobs.size());
  for (size_t i = 0; i < rows->size(); ++i) {
    const size_t targets = batch.policy_logprobs[i].size();
    (*rows)[i].assign(value, value + targets);
    value += targets;
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<OutsideLoss> AskOutside(const OutsideLossSettings& settings, const OutsideBatch& batch,
                                       parallel::ProcessGroup& group) {
  if (group.size() == 1) return Checked(settings, batch);
  OutsideLoss answer;
  absl::Status status;
  if (group.rank() == 0) {
    absl::StatusOr<OutsideLoss> asked = Checked(settings, batch);
    status = asked.status();
    if (asked.ok()) answer = *std::move(asked);
  }
  at::Tensor failed = at::full({1}, status.ok() ? 0.0 : 1.0, at::kDouble);
  REIN_RETURN_IF_ERROR(group.AllReduceSum(failed));
  REIN_RETURN_IF_ERROR(status);
  if (failed.item<double>() != 0) return absl::AbortedError("rank 0 of the trainer got no loss for this batch");
  REIN_RETURN_IF_ERROR(Share(group, batch, &answer.logprob_gradients));
  if (settings.entropies) REIN_RETURN_IF_ERROR(Share(group, batch, &answer.entropy_gradients));
  return answer;
}

}  // namespace rein::trainer

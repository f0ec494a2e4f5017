// The part of PolicyTrainer that computes figures of targets without gradients, before and between steps.

#include <algorithm>
#include <map>
#include <numeric>
#include <utility>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "common/random/philox.h"
#include "common/status/status_macros.h"
#include "common/tensor/catch_torch.h"
#include "trainer/outside_loss.h"
#include "trainer/packed_targets.h"
#include "trainer/policy_trainer.h"
#include "trainer/update_batch.h"
#include "trainer/update_sums.h"

namespace rein::trainer {

using tensor::CatchTorch;

// Every rank holds the log-probs of its own sequences; afterwards all hold all.
absl::Status PolicyTrainer::ShareLogprobs(const std::vector<TrainingSequence>& sequences,
                                          std::vector<std::vector<float>>* logprobs) {
  if (group_.size() == 1) return absl::OkStatus();
  std::vector<float> flat;
  for (size_t i = 0; i < sequences.size(); ++i) {
    std::vector<float> own = (*logprobs)[i];
    own.resize(static_cast<size_t>(sequences[i].targets()),
               0);  // zeros where another rank has them
    flat.insert(flat.end(), own.begin(), own.end());
  }
  at::Tensor sum = at::tensor(flat, at::kFloat);
  REIN_RETURN_IF_ERROR(group_.AllReduceSum(sum));
  const auto* value = sum.const_data_ptr<float>();
  for (size_t i = 0; i < sequences.size(); ++i) {
    (*logprobs)[i].assign(value, value + sequences[i].targets());
    value += sequences[i].targets();
  }
  return absl::OkStatus();
}

absl::Status PolicyTrainer::ShareFigures(const std::vector<TrainingSequence>& sequences,
                                         const std::vector<size_t>& passed, TokenFigures* figures) {
  if (group_.size() == 1) return absl::OkStatus();
  std::vector<bool> has(sequences.size());
  for (size_t i : passed) has[i] = true;
  for (auto* rows : {&figures->logprobs, &figures->entropies}) {
    REIN_RETURN_IF_ERROR(ShareLogprobs(sequences, rows));
    for (size_t i = 0; i < sequences.size(); ++i) {
      if (!has[i]) (*rows)[i].clear();
    }
  }
  return absl::OkStatus();
}

// Figures of every target, each rank computing those of its share, or `whole`: this one all of them.
absl::StatusOr<std::vector<std::vector<float>>> PolicyTrainer::OfTargets(
    const std::vector<TrainingSequence>& sequences, const TargetPass& pass, bool whole) {
  std::vector<size_t> all(sequences.size());
  std::iota(all.begin(), all.end(), size_t{0});
  std::vector<std::vector<float>> figures(sequences.size());
  absl::Status status;
  for (const auto& members : OwnMicrobatches(sequences, all, whole)) {
    status.Update(CatchTorch("forward", [&] {
      if (status.ok()) status = pass(sequences, members, &figures);
    }));
  }
  if (whole) {
    REIN_RETURN_IF_ERROR(status);
    return figures;
  }
  REIN_RETURN_IF_ERROR(Agree(status));
  REIN_RETURN_IF_ERROR(ShareLogprobs(sequences, &figures));
  return figures;
}

PolicyTrainer::TargetPass PolicyTrainer::LogprobsBy(const models::Decoder& decoder) const {
  return [this, &decoder](const std::vector<TrainingSequence>& sequences,
                          const std::vector<size_t>& members,
                          std::vector<std::vector<float>>* logprobs) {
    at::NoGradGuard no_grad;
    const PackedTargets packed = PackTargets(sequences, members, settings_.share_prompts, ChoiceWidth(settings_.router, decoder.spec()));
    if (packed.target.empty()) return absl::OkStatus();
    ForwardExtras extras;
    if (!packed.choices.empty()) extras.routers = NewRecord(settings_.router, decoder, packed, 1, even_E_);
    nn::TokenLogprobs out = ForwardTargets(decoder, packed, algorithm_.temperature, false, extras);
    return SplitTargets(out.logprob_N, packed, sequences, members, "policy_logprob", logprobs);
  };
}

// All passes that come before the first step.
absl::StatusOr<UpdateBatch> PolicyTrainer::Prepare(
    const std::vector<TrainingSequence>& sequences, bool whole) {
  std::vector<std::vector<float>> values;
  if (critic_ != nullptr) {
    REIN_ASSIGN_OR_RETURN(values, OfTargets(sequences, [this](auto& all, auto& members, auto* out) {
                            return critic_->Values(all, members, out);
                          }));
  }
  UpdateBatch batch = PrepareBatch(sequences, algorithm_, kl_coefficient(), values,
                                   random::DeriveKey(settings_.seed, progress_.updates));
  if (algorithm_.recomputes_old) {
    REIN_ASSIGN_OR_RETURN(batch.old_logprobs, OfTargets(sequences, LogprobsBy(policy_->decoder())));
  }
  if (algorithm_.frozen_reference) {
    REIN_ASSIGN_OR_RETURN(batch.frozen_logprobs, OfTargets(sequences, LogprobsBy(*reference_), whole));
  }
  if (algorithm_.needs_mismatch_kl) {
    const std::vector<TrainingSequence> mixed = Mismatched(sequences, settings_.max_length);
    REIN_ASSIGN_OR_RETURN(auto policy, OfTargets(mixed, LogprobsBy(policy_->decoder()), whole));
    REIN_ASSIGN_OR_RETURN(auto reference, OfTargets(mixed, LogprobsBy(*reference_), whole));
    batch.mismatch_kl = std::max(0.0, MeanDifference(policy, reference));
  }
  return batch;
}

// With a loss from outside: its derivatives for the minibatch, whose log-probs take a forward pass of their own.
absl::Status PolicyTrainer::AskOutsideLoss(const std::vector<size_t>& minibatch, size_t step, UpdateBatch* batch,
                                           UpdateSums* sums) {
  if (!algorithm_.outside) return absl::OkStatus();
  std::vector<TrainingSequence> part;
  OutsideBatch asked{.update = progress_.updates + 1, .step = step};
  for (size_t i : Unmasked(*batch, minibatch, algorithm_)) {
    part.push_back(batch->sequences[i]);
    asked.sequences.push_back(&batch->sequences[i]);
    asked.advantages.push_back(batch->advantages.empty() ? std::vector<double>() : batch->advantages[i]);
  }
  if (algorithm_.needs_reference && !algorithm_.kl.in_reward) asked.kl_coefficient = batch->kl_coefficient;
  asked.entropies.resize(part.size());
  const TargetPass pass = [&](const std::vector<TrainingSequence>& sequences, const std::vector<size_t>& members,
                              std::vector<std::vector<float>>* logprobs) {
    at::NoGradGuard no_grad;
    const PackedTargets packed = PackTargets(sequences, members, settings_.share_prompts);
    if (packed.target.empty()) return absl::OkStatus();
    nn::TokenLogprobs out = ForwardTargets(policy_->decoder(), packed, algorithm_.temperature, false);
    REIN_RETURN_IF_ERROR(SplitTargets(out.entropy_N, packed, sequences, members, "entropy", &asked.entropies));
    return SplitTargets(out.logprob_N, packed, sequences, members, "policy_logprob", logprobs);
  };
  REIN_ASSIGN_OR_RETURN(asked.policy_logprobs, OfTargets(part, pass));
  if (algorithm_.outside->entropies) {
    REIN_RETURN_IF_ERROR(ShareLogprobs(part, &asked.entropies));
  } else {
    asked.entropies.clear();
  }
  REIN_ASSIGN_OR_RETURN(OutsideLoss answer, AskOutside(*algorithm_.outside, asked, group_));
  batch->logprob_gradients.assign(batch->sequences.size(), {});
  batch->entropy_gradients.assign(answer.entropy_gradients.empty() ? 0 : batch->sequences.size(), {});
  for (size_t k = 0; k < part.size(); ++k) {
    const auto i = static_cast<size_t>(asked.sequences[k] - batch->sequences.data());
    batch->logprob_gradients[i] = std::move(answer.logprob_gradients[k]);
    if (!answer.entropy_gradients.empty()) batch->entropy_gradients[i] = std::move(answer.entropy_gradients[k]);
  }
  sums->loss += answer.loss;  // of rank 0 alone; the others have 0
  outside_metrics_.insert(outside_metrics_.end(), answer.metrics.begin(), answer.metrics.end());
  return absl::OkStatus();
}

// Each figure of the loss service, the mean of its steps.
void PolicyTrainer::AddOutsideMetrics(std::vector<Metric>* metrics) {
  std::map<std::string, std::pair<double, double>> sums;  // with the count
  for (const Metric& metric : outside_metrics_) {
    sums[metric.name].first += metric.value;
    sums[metric.name].second += 1;
  }
  outside_metrics_.clear();
  for (const auto& [name, sum] : sums) metrics->push_back({name, sum.first / sum.second});
}

}  // namespace rein::trainer

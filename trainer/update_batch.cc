#include "trainer/update_batch.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include <ATen/ATen.h>

#include "common/tensor/transfer.h"
#include "trainer/advantages/token_reward.h"

namespace rein::trainer {
namespace {

// behaviour - reference, the k1 estimate of KL, of each target.
TokenRows SampledKl(const std::vector<TrainingSequence>& sequences, double coefficient) {
  TokenRows rows;
  for (const TrainingSequence& s : sequences) {
    auto& row = rows.emplace_back();
    for (size_t t = 0; t < s.behaviour_logprobs.size(); ++t) {
      row.push_back(coefficient *
                    (static_cast<double>(s.behaviour_logprobs[t]) - s.reference_logprobs[t]));
    }
  }
  return rows;
}

// A label of each target: targets that stand together are one turn.
std::vector<int64_t> TurnOfTargets(const TrainingSequence& s) {
  std::vector<int64_t> labels;
  int64_t turn = -1;
  for (size_t t = 1; t < s.loss_mask.size(); ++t) {
    if (s.loss_mask[t] == 0) continue;
    if (labels.empty() || s.loss_mask[t - 1] == 0) ++turn;
    labels.push_back(turn);
  }
  return labels;
}

// What each target earned: each turn's reward is earned at its last one; empty where all of it is at the very last.
std::vector<double> EarnedByTargets(const TrainingSequence& s) {
  if (!s.target_rewards.empty() || s.turn_rewards.empty()) return s.target_rewards;
  const std::vector<int64_t> turns = TurnOfTargets(s);
  std::vector<double> earned(turns.size(), 0.0);
  for (size_t t = 0; t < turns.size(); ++t) {
    const bool last = t + 1 == turns.size() || turns[t + 1] != turns[t];
    if (last) earned[t] = s.turn_rewards[static_cast<size_t>(turns[t])];
  }
  return earned;
}

void Select(const TokenSelection& selection, uint64_t draw_key, UpdateBatch* batch) {
  TokenRows logprobs;
  for (const TrainingSequence& s : batch->sequences) {
    logprobs.emplace_back(s.behaviour_logprobs.begin(), s.behaviour_logprobs.end());
  }
  const TokenRows covariance = Covariances(logprobs, batch->advantages);
  batch->selected = selection.range
                        ? DrawInRange(covariance, *selection.range, selection.share, draw_key)
                        : HighestShare(covariance, selection.share);
}

bool Masked(const TrainingSequence& s, const Algorithm& algorithm) {
  return s.targets() == 0 || (algorithm.mask_truncated && s.truncated);
}

// How many targets it has, each counting what it weighs.
double Targets(const TrainingSequence& s, const Algorithm& algorithm) {
  if (!algorithm.weighs_targets || s.target_rewards.empty()) return static_cast<double>(s.targets());
  return std::accumulate(s.target_rewards.begin(), s.target_rewards.end(), 0.0);
}

}  // namespace

std::vector<double> UpdateBatch::MeanAdvantages() const {
  std::vector<double> means;
  for (const auto& row : advantages) {
    double sum = 0;
    for (double a : row) sum += a;
    means.push_back(row.empty() ? 0 : sum / static_cast<double>(row.size()));
  }
  return means;
}

UpdateBatch PrepareBatch(const std::vector<TrainingSequence>& sequences, const Algorithm& algorithm,
                         double kl_coefficient,
                         const std::vector<std::vector<float>>& values, uint64_t draw_key) {
  UpdateBatch batch{.sequences = sequences, .kl_coefficient = kl_coefficient};
  if (!algorithm.advantage) return batch;
  AdvantageInputs in;
  for (const TrainingSequence& s : sequences) {
    in.reward.push_back(s.reward);
    in.group.push_back(s.group);
    in.targets.push_back(s.targets());
    in.parts.push_back(s.reward_parts);
    in.greedy_reward.push_back(s.greedy_reward);
    in.earned.push_back(EarnedByTargets(s));
    if (algorithm.advantage->turns) in.turn.push_back(TurnOfTargets(s));
  }
  if (algorithm.kl.in_reward && kl_coefficient > 0) in.penalty = SampledKl(sequences, kl_coefficient);
  for (const auto& row : values) in.value.emplace_back(row.begin(), row.end());
  Advantages advantages = EstimateAdvantages(*algorithm.advantage, in);
  batch.advantages = std::move(advantages.advantage);
  batch.returns = std::move(advantages.returns);
  batch.values = std::move(in.value);
  if (algorithm.selection) Select(*algorithm.selection, draw_key, &batch);
  return batch;
}

GlobalCounts CountTargets(const std::vector<TrainingSequence>& sequences,
                          const std::vector<size_t>& minibatch, const Algorithm& algorithm) {
  GlobalCounts counts;
  counts.horizon = algorithm.horizon;
  for (size_t i : minibatch) {
    if (Masked(sequences[i], algorithm)) continue;
    counts.tokens += Targets(sequences[i], algorithm);
    counts.sequences += 1;
  }
  if (counts.tokens == 0) counts.tokens = 1;
  counts.sequences = std::max(counts.sequences, 1.0);
  return counts;
}

std::vector<size_t> WithSignal(const UpdateBatch& batch, const std::vector<size_t>& minibatch,
                               const Algorithm& algorithm) {
  std::vector<size_t> members;
  for (size_t i : Unmasked(batch, minibatch, algorithm)) {
    const bool skips = algorithm.skips_zero_advantage && !batch.advantages.empty();
    if (skips && std::all_of(batch.advantages[i].begin(), batch.advantages[i].end(),
                             [](double a) { return a == 0; })) {
      continue;
    }
    members.push_back(i);
  }
  return members;
}

std::vector<size_t> Unmasked(const UpdateBatch& batch, const std::vector<size_t>& minibatch,
                             const Algorithm& algorithm) {
  std::vector<size_t> members;
  for (size_t i : minibatch) {
    if (!Masked(batch.sequences[i], algorithm)) members.push_back(i);
  }
  return members;
}

at::Tensor LossWeights(const UpdateBatch& batch, const Algorithm& algorithm,
                       const std::vector<size_t>& members) {
  std::vector<float> weight;
  for (size_t i : members) {
    const TrainingSequence& s = batch.sequences[i];
    const bool whole = algorithm.scalar_head && !algorithm.scores_targets;
    const double w = Masked(s, algorithm)
                         ? 0
                         : TokenWeight(algorithm.aggregation, whole ? 1 : Targets(s, algorithm), batch.counts);
    const size_t first = weight.size();
    weight.insert(weight.end(), whole ? 1 : static_cast<size_t>(s.targets()), static_cast<float>(w));
    if (!algorithm.weighs_targets || s.target_rewards.empty()) continue;
    for (size_t t = 0; t < s.target_rewards.size(); ++t) weight[first + t] *= static_cast<float>(s.target_rewards[t]);
  }
  return at::tensor(weight, at::kFloat);
}

LossInputs InputsOfLoss(const UpdateBatch& batch, const Algorithm& algorithm,
                        const std::vector<size_t>& members, at::Device device) {
  std::vector<float> behaviour, old, reference, advantage, label, target_label, selected;
  std::vector<int64_t> lengths, candidates;
  std::vector<float> teacher;
  std::vector<float> logprob_gradient, entropy_gradient;
  auto append = [](auto& to, const auto& from) { to.insert(to.end(), from.begin(), from.end()); };
  for (size_t i : members) {
    const TrainingSequence& s = batch.sequences[i];
    if (!batch.logprob_gradients.empty()) append(logprob_gradient, batch.logprob_gradients[i]);
    if (!batch.entropy_gradients.empty()) append(entropy_gradient, batch.entropy_gradients[i]);
    lengths.push_back(s.targets());
    label.push_back(static_cast<float>(s.reward));
    append(target_label, s.target_rewards);
    if (!batch.advantages.empty()) append(advantage, batch.advantages[i]);
    if (!batch.selected.empty()) append(selected, batch.selected[i]);
    append(behaviour, s.behaviour_logprobs);
    append(candidates, s.teacher_ids);
    append(teacher, s.teacher_logprobs);
    append(reference,
           batch.frozen_logprobs.empty() ? s.reference_logprobs : batch.frozen_logprobs[i]);
    if (!batch.old_logprobs.empty()) append(old, batch.old_logprobs[i]);
  }
  auto on_device = [&](const std::vector<float>& v) { return tensor::ToDevice(at::tensor(v, at::kFloat), device); };
  LossInputs in;
  if (algorithm.needs_behaviour) in.behaviour_logprob_T = on_device(behaviour);
  in.old_logprob_T = old.empty() ? in.behaviour_logprob_T : on_device(old);
  if (algorithm.needs_reference || algorithm.frozen_reference) {
    in.reference_logprob_T = on_device(reference);
  }
  if (!advantage.empty()) in.advantage_T = on_device(advantage);
  int64_t targets = 0;
  for (int64_t length : lengths) targets += length;
  if (algorithm.needs_teacher && targets > 0) {
    in.candidate_TK = tensor::ToDevice(at::tensor(candidates, at::kLong).view({targets, -1}), device);
    in.teacher_logprob_TK = on_device(teacher).view({targets, -1});
  }
  if (!selected.empty()) in.selected_T = on_device(selected);
  if (!logprob_gradient.empty()) in.logprob_gradient_T = on_device(logprob_gradient);
  if (!entropy_gradient.empty()) in.entropy_gradient_T = on_device(entropy_gradient);
  in.segments = Segments::Of(lengths, device);
  in.kl_coefficient = batch.kl_coefficient;
  in.label_S = on_device(label);
  if (algorithm.scores_targets) in.label_T = on_device(target_label);
  in.mismatch_kl = batch.mismatch_kl;
  return in;
}

std::vector<TrainingSequence> Mismatched(const std::vector<TrainingSequence>& sequences,
                                         int64_t max_length) {
  auto completion_of = [](const TrainingSequence& s) {
    return std::find(s.loss_mask.begin(), s.loss_mask.end(), 1) - s.loss_mask.begin();
  };
  std::vector<TrainingSequence> mixed;
  for (size_t i = 0; i < sequences.size(); ++i) {
    const TrainingSequence &s = sequences[i], &next = sequences[(i + 1) % sequences.size()];
    const auto prompt = completion_of(s), rest = completion_of(next);
    TrainingSequence& m = mixed.emplace_back();
    m.id = s.id;
    m.token_ids.assign(s.token_ids.begin(), s.token_ids.begin() + prompt);
    m.token_ids.insert(m.token_ids.end(), next.token_ids.begin() + rest, next.token_ids.end());
    m.loss_mask.assign(s.loss_mask.begin(), s.loss_mask.begin() + prompt);
    m.loss_mask.insert(m.loss_mask.end(), next.loss_mask.begin() + rest, next.loss_mask.end());
    if (static_cast<int64_t>(m.token_ids.size()) <= max_length) continue;
    m.token_ids.resize(static_cast<size_t>(max_length));
    m.loss_mask.resize(static_cast<size_t>(max_length));
  }
  return mixed;
}

double MeanDifference(const std::vector<std::vector<float>>& a,
                      const std::vector<std::vector<float>>& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    for (size_t t = 0; t < a[i].size(); ++t) sum += static_cast<double>(a[i][t]) - b[i][t];
  }
  return sum / std::max<double>(1, static_cast<double>(a.size()));
}

double NextKlCoefficientOf(const UpdateBatch& batch, const Algorithm& algorithm) {
  if (!algorithm.kl.target) return batch.kl_coefficient;
  double sum = 0, count = 0;
  for (const auto& row : SampledKl(batch.sequences, 1)) {
    for (double kl : row) sum += kl;
    count += static_cast<double>(row.size());
  }
  return NextKlCoefficient(batch.kl_coefficient, sum / std::max(count, 1.0), *algorithm.kl.target,
                           static_cast<double>(batch.sequences.size()), algorithm.kl.horizon);
}

}  // namespace rein::trainer

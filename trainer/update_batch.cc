#include "trainer/update_batch.h"

#include <algorithm>

#include <ATen/ATen.h>

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

bool Masked(const TrainingSequence& s, const Algorithm& algorithm) {
  return s.targets() == 0 || (algorithm.mask_truncated && s.truncated);
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
                         double kl_coefficient) {
  UpdateBatch batch{sequences, {}, kl_coefficient, {}, {}};
  if (!algorithm.advantage) return batch;
  AdvantageInputs in;
  for (const TrainingSequence& s : sequences) {
    in.reward.push_back(s.reward);
    in.group.push_back(s.group);
    in.targets.push_back(s.targets());
    in.parts.push_back(s.reward_parts);
    in.greedy_reward.push_back(s.greedy_reward);
  }
  if (algorithm.kl.in_reward && kl_coefficient > 0) in.penalty = SampledKl(sequences, kl_coefficient);
  batch.advantages = EstimateAdvantages(*algorithm.advantage, in);
  return batch;
}

GlobalCounts CountTargets(const std::vector<TrainingSequence>& sequences,
                          const std::vector<size_t>& minibatch, const Algorithm& algorithm) {
  GlobalCounts counts;
  counts.horizon = algorithm.horizon;
  for (size_t i : minibatch) {
    if (Masked(sequences[i], algorithm)) continue;
    counts.tokens += static_cast<double>(sequences[i].targets());
    counts.sequences += 1;
  }
  counts.tokens = std::max(counts.tokens, 1.0);
  counts.sequences = std::max(counts.sequences, 1.0);
  return counts;
}

std::vector<size_t> WithSignal(const UpdateBatch& batch, const std::vector<size_t>& minibatch,
                               const Algorithm& algorithm) {
  std::vector<size_t> members;
  for (size_t i : minibatch) {
    if (Masked(batch.sequences[i], algorithm)) continue;
    const bool skips = algorithm.skips_zero_advantage && !batch.advantages.empty();
    if (skips && std::all_of(batch.advantages[i].begin(), batch.advantages[i].end(),
                             [](double a) { return a == 0; })) {
      continue;
    }
    members.push_back(i);
  }
  return members;
}

LossInputs InputsOfLoss(const UpdateBatch& batch, const Algorithm& algorithm,
                        const std::vector<size_t>& members, const nn::TokenLogprobs& forward,
                        at::Tensor* weight_T) {
  std::vector<float> behaviour, old, reference, advantage, weight;
  std::vector<int64_t> lengths;
  auto append = [](auto& to, const auto& from) { to.insert(to.end(), from.begin(), from.end()); };
  for (size_t i : members) {
    const TrainingSequence& s = batch.sequences[i];
    const int64_t targets = s.targets();
    const double w =
        Masked(s, algorithm) ? 0 : TokenWeight(algorithm.aggregation, targets, batch.counts);
    weight.insert(weight.end(), targets, static_cast<float>(w));
    lengths.push_back(targets);
    if (!batch.advantages.empty()) append(advantage, batch.advantages[i]);
    append(behaviour, s.behaviour_logprobs);
    append(reference, s.reference_logprobs);
    if (!batch.old_logprobs.empty()) append(old, batch.old_logprobs[i]);
  }
  at::Device device = forward.logprob_N.device();
  auto on_device = [&](const std::vector<float>& v) { return at::tensor(v, at::kFloat).to(device); };
  LossInputs in;
  in.policy_logprob_T = forward.logprob_N;
  in.entropy_T = forward.entropy_N;
  if (algorithm.needs_behaviour) in.behaviour_logprob_T = on_device(behaviour);
  in.old_logprob_T = old.empty() ? in.behaviour_logprob_T : on_device(old);
  if (algorithm.needs_reference) in.reference_logprob_T = on_device(reference);
  if (!advantage.empty()) in.advantage_T = on_device(advantage);
  in.segments = Segments::Of(lengths, device);
  in.kl_coefficient = batch.kl_coefficient;
  *weight_T = on_device(weight);
  return in;
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

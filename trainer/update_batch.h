// What an Update computes from its sequences before any forward pass, and hands to the loss with it.

#pragma once

#include <vector>

#include <ATen/core/Tensor.h>

#include "trainer/algorithms/algorithm.h"
#include "trainer/packed_targets.h"
#include "trainer/training_sequence.h"

namespace rein::trainer {

struct UpdateBatch {
  const std::vector<TrainingSequence>& sequences;
  TokenRows advantages;                        // of each target; no rows: the algorithm has none
  double kl_coefficient = 0;                   // in force
  std::vector<std::vector<float>> old_logprobs;  // recomputed ones; empty: behaviour's are used
  GlobalCounts counts;                         // of the minibatch in hand

  // The mean advantage of each sequence; empty when the algorithm has none.
  std::vector<double> MeanAdvantages() const;
};

// `kl_coefficient` as it stands now. The sequences must outlive the batch.
UpdateBatch PrepareBatch(const std::vector<TrainingSequence>& sequences, const Algorithm& algorithm,
                         double kl_coefficient);

// Counts of the minibatch's targets for the loss's denominators.
GlobalCounts CountTargets(const std::vector<TrainingSequence>& sequences,
                          const std::vector<size_t>& minibatch, const Algorithm& algorithm);

// Those of the minibatch that have a gradient: not the truncated ones that are masked, nor, where the
// algorithm allows it, those whose advantages are all exactly 0 (groups of equal rewards). The others need no
// forward pass; denominators count them all the same.
std::vector<size_t> WithSignal(const UpdateBatch& batch, const std::vector<size_t>& minibatch,
                               const Algorithm& algorithm);

// What the loss needs beside the forward, for each target of `members` in packed order. weight_T: what each
// token loss is multiplied with.
LossInputs InputsOfLoss(const UpdateBatch& batch, const Algorithm& algorithm,
                        const std::vector<size_t>& members, const nn::TokenLogprobs& forward,
                        at::Tensor* weight_T);

// The coefficient for the next Update: another one only where it is adaptive.
double NextKlCoefficientOf(const UpdateBatch& batch, const Algorithm& algorithm);

}  // namespace rein::trainer

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
  TokenRows values, returns;                   // of the critic, if there is one
  double kl_coefficient = 0;                   // in force
  std::vector<std::vector<float>> old_logprobs;  // recomputed ones; empty: behaviour's are used
  std::vector<std::vector<float>> frozen_logprobs;  // of the frozen reference; empty: the sequences' own
  double mismatch_kl = 0;                           // z of KTO
  std::vector<std::vector<uint8_t>> selected;       // of each target, with Algorithm::selection
  // Of each sequence of the minibatch in hand, with Algorithm::outside; entropies' may be empty.
  std::vector<std::vector<float>> logprob_gradients, entropy_gradients;
  GlobalCounts counts;                         // of the minibatch in hand
  bool policy_moved = false;                   // a step of this Update was made
  bool promised = true;                        // generators give the very log-probs of the trainer

  // The mean advantage of each sequence; empty when the algorithm has none.
  std::vector<double> MeanAdvantages() const;
};

// `kl_coefficient` as it stands now; `values`: the critic's, with kGae; `draw_key` keys what is drawn at random. The
// sequences must outlive the batch.
UpdateBatch PrepareBatch(const std::vector<TrainingSequence>& sequences, const Algorithm& algorithm,
                         double kl_coefficient,
                         const std::vector<std::vector<float>>& values = {},
                         uint64_t draw_key = 0);

// Each prompt with the completion of the next sequence, as KTO estimates its z.
// Longer ones than `max_length` tokens are cut.
std::vector<TrainingSequence> Mismatched(const std::vector<TrainingSequence>& sequences,
                                         int64_t max_length);

// Mean over sequences of the difference of their sums.
double MeanDifference(const std::vector<std::vector<float>>& a,
                      const std::vector<std::vector<float>>& b);

// Counts of the minibatch's targets for the loss's denominators.
GlobalCounts CountTargets(const std::vector<TrainingSequence>& sequences,
                          const std::vector<size_t>& minibatch, const Algorithm& algorithm);

// Those of the minibatch that have a gradient: not the truncated ones that are masked, nor, where the
// algorithm allows it, those whose advantages are all exactly 0 (groups of equal rewards). The others need no
// forward pass; denominators count them all the same.
std::vector<size_t> WithSignal(const UpdateBatch& batch, const std::vector<size_t>& minibatch,
                               const Algorithm& algorithm);

// The same without regard to advantages: what a critic learns from.
std::vector<size_t> Unmasked(const UpdateBatch& batch, const std::vector<size_t>& minibatch,
                             const Algorithm& algorithm);

// What the token losses of `members` are multiplied with, in packed order; with a scalar head one weight for
// each sequence. On the CPU.
at::Tensor LossWeights(const UpdateBatch& batch, const Algorithm& algorithm,
                       const std::vector<size_t>& members);

// What the loss needs beside the forward, for each target of `members` in packed order.
LossInputs InputsOfLoss(const UpdateBatch& batch, const Algorithm& algorithm,
                        const std::vector<size_t>& members, at::Device device);

// The coefficient for the next Update: another one only where it is adaptive.
double NextKlCoefficientOf(const UpdateBatch& batch, const Algorithm& algorithm);

}  // namespace rein::trainer

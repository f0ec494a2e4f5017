// PolicyTrainer holds a model's master weights and optimizer state, and learns from batches.
//
//   Create ( Update | ForwardBackward* OptimStep | Score | Measure | Save )*
//
// Update = for each minibatch: forward, loss and backward over packed microbatches, then one
// optimizer step. Gradients do not depend, beyond rounding, on the microbatch budget or the number
// of ranks. On the CPU the same state and batch give the same bits. With several ranks every rank
// makes the same calls with the same batch; each works on its share. Not thread-safe.

#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include <ATen/core/Tensor.h>

#include "common/models/decoder.h"
#include "common/models/model_folder.h"
#include "common/parallel/process_group.h"
#include "common/weights/registry.h"
#include "trainer/algorithms/algorithm.h"
#include "trainer/critic.h"
#include "trainer/memory_plan.h"
#include "trainer/mismatch.h"
#include "trainer/parameter_set.h"
#include "trainer/router_rules.h"
#include "trainer/sequence_check.h"
#include "trainer/trainer_settings.h"
#include "trainer/training_sequence.h"
#include "trainer/update_batch.h"
#include "trainer/update_sums.h"

namespace rein::trainer {

// Of the targets of each sequence; empty for one that needed no forward pass.
struct TokenFigures {
  std::vector<std::vector<float>> logprobs, entropies;  // nats

  explicit TokenFigures(size_t sequences) : logprobs(sequences), entropies(sequences) {}
};

struct UpdateResult {
  std::vector<double> advantages;  // of each sequence; empty when the algorithm has none
  std::vector<Metric> metrics;
  std::vector<MismatchedToken> mismatched;  // the first of this rank, if any
  // Of all ranks' sequences, with TrainerSettings::token_figures: before the first step that learned from a sequence.
  std::optional<TokenFigures> figures;
};

struct PassResult {
  std::vector<Metric> metrics;
  std::vector<std::vector<float>> logprobs;  // of the targets of each sequence
};

// What held-out sequences give.
struct Measured {
  std::vector<Metric> metrics;
  double weight = 0;  // the loss's denominator: of these figures in a mean over several calls
};

// Where a trainer stands; written into checkpoints.
struct TrainerProgress {
  uint64_t updates = 0;  // consumed
  int64_t optimizer_steps = 0;
  std::optional<double> kl_coefficient;  // an adaptive one that has moved
};

class PolicyTrainer {
 public:
  // INVALID_ARGUMENT or NOT_FOUND for a bad model folder, RESOURCE_EXHAUSTED when memory does not
  // suffice. `group` must outlive the trainer.
  static absl::StatusOr<std::unique_ptr<PolicyTrainer>> Create(TrainerSettings settings,
                                                               Algorithm algorithm,
                                                               parallel::ProcessGroup& group);

  // INVALID_ARGUMENT names the sequence that does not fit (an id outside the vocabulary, a missing
  // log-prob ...). ABORTED when a loss or gradient is not finite, naming the first offending token.
  // On any error weights and optimizer are as before.
  // `promised`: false where generators run another build or GPU, so that log-probs need not be equal.
  absl::StatusOr<UpdateResult> Update(const std::vector<TrainingSequence>& sequences, bool promised = true);

  // Adds the gradients of one batch, as one minibatch.
  absl::StatusOr<PassResult> ForwardBackward(const std::vector<TrainingSequence>& sequences);
  // Applies and clears what was accumulated. FAILED_PRECONDITION when nothing was.
  absl::StatusOr<std::vector<Metric>> OptimStep(std::optional<double> learning_rate);

  // Log-probs of the targets under the current weights, by this rank alone.
  absl::StatusOr<std::vector<std::vector<float>>> Score(
      const std::vector<TrainingSequence>& sequences);
  // The loss and figures of held-out sequences, by this rank alone. INVALID_ARGUMENT for an algorithm with advantages.
  absl::StatusOr<Measured> Measure(const std::vector<TrainingSequence>& sequences);

  int rank() const { return group_.rank(); }
  // What it needs of its device.
  const MemoryPlan& memory_plan() const { return memory_plan_; }
  const TrainerProgress& progress() const { return progress_; }
  const weights::Registry& registry() const { return policy_->registry(); }
  const models::ModelDescription& model() const { return policy_->model(); }
  const models::Decoder& decoder() const { return policy_->decoder(); }
  const at::Tensor& compute() const { return policy_->compute(); }
  models::ArenaParts parts() const { return policy_->parts(); }
  uint64_t frozen_digest() const { return policy_->frozen_digest(); }
  const std::string& dtype() const { return settings_.dtype; }

  // PPO's critic; null where there is none. A checkpoint keeps its arenas too.
  ParameterSet* critic() { return critic_ == nullptr ? nullptr : &critic_->parameters(); }

  // The trained part of the compute arena on the CPU; a view when it is there already.
  absl::StatusOr<at::Tensor> HostWeights() const;

  // Whole optimizer arenas of the policy on the CPU for a checkpoint (gathered from all ranks), and back.
  absl::StatusOr<Arenas> GatherArenas() { return policy_->Gather(); }
  absl::Status RestoreArenas(const Arenas& arenas, const TrainerProgress& progress);

 private:
  PolicyTrainer(TrainerSettings settings, Algorithm algorithm, parallel::ProcessGroup& group);
  // Fills (*figures)[member] for the targets of a microbatch; no gradients.
  using TargetPass = std::function<absl::Status(const std::vector<TrainingSequence>& sequences,
                                                const std::vector<size_t>& members,
                                                std::vector<std::vector<float>>* figures)>;

  absl::Status PlanDevice();
  absl::Status FreezeReference();
  SequenceLimits limits() const {
    const models::DecoderSpec& spec = policy_->model().spec;
    return {settings_.max_length, spec.vocab_size, ChoiceWidth(settings_.router, spec), spec.experts.routing.experts};
  }
  absl::StatusOr<UpdateBatch> Prepare(const std::vector<TrainingSequence>& sequences, bool whole = false);
  absl::StatusOr<std::vector<std::vector<float>>> OfTargets(
      const std::vector<TrainingSequence>& sequences, const TargetPass& pass, bool whole = false);
  TargetPass LogprobsBy(const models::Decoder& decoder) const;
  std::vector<std::vector<size_t>> OwnMicrobatches(const std::vector<TrainingSequence>& sequences,
                                                   const std::vector<size_t>& members,
                                                   bool whole = false) const;
  absl::Status Accumulate(const UpdateBatch& batch, const std::vector<size_t>& minibatch,
                          UpdateSums* sums, TokenFigures* figures, bool whole = false);
  // `minibatch_tokens`: of all ranks' sequences together. `unread`, in and out: the microbatch before, whose figures are read when
  // this one's forward pass is under way; and this one.
  struct Unread;
  absl::Status Microbatch(const UpdateBatch& batch, const std::vector<size_t>& members, double minibatch_tokens,
                          UpdateSums* sums, TokenFigures* figures, std::optional<Unread>* unread);
  absl::Status Read(const UpdateBatch& batch, Unread& of, UpdateSums* sums, TokenFigures* figures) const;
  absl::Status AskOutsideLoss(const std::vector<size_t>& minibatch, size_t step, UpdateBatch* batch,
                              UpdateSums* sums);
  void AddOutsideMetrics(std::vector<Metric>* metrics);
  at::Tensor EmbeddingNoise(const std::vector<TrainingSequence>& sequences,
                            const std::vector<size_t>& members) const;
  absl::Status Agree(const absl::Status& own);
  // Of the sequences that were `passed`; the others have none.
  absl::Status ShareFigures(const std::vector<TrainingSequence>& sequences, const std::vector<size_t>& passed,
                            TokenFigures* figures);
  absl::Status ShareLogprobs(const std::vector<TrainingSequence>& sequences,
                             std::vector<std::vector<float>>* logprobs);
  double kl_coefficient() const {
    return progress_.kl_coefficient.value_or(algorithm_.kl.coefficient);
  }
  // One optimizer step from what `sums` saw since the last one.
  absl::StatusOr<double> Step(double learning_rate, UpdateSums* sums);
  absl::StatusOr<std::vector<ParameterSet::Shift>> RouterShifts(UpdateSums* sums);
  // The even shares of RouterRecord::even_E where the auxiliary loss is global.
  absl::Status CountChoices(const UpdateBatch& batch, const std::vector<size_t>& minibatch);
  absl::Status StepCritic(const UpdateBatch& batch, const std::vector<size_t>& minibatch,
                          CriticSums* sums);

  TrainerSettings settings_;
  Algorithm algorithm_;
  MemoryPlan memory_plan_;
  parallel::ProcessGroup& group_;
  std::unique_ptr<ParameterSet> policy_;
  std::unique_ptr<Critic> critic_;
  at::Tensor reference_compute_;  // the frozen reference's weights, where training moves the policy's
  std::unique_ptr<models::Decoder> reference_;
  at::Tensor even_E_;  // of the minibatch in hand; see CountChoices()
  TrainerProgress progress_;
  bool has_gradients_ = false;
  std::vector<Metric> outside_metrics_;  // of the Update in hand
};

}  // namespace rein::trainer

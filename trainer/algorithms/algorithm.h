// An Algorithm is a composition: how rewards become advantages, and how log-probs become a loss.
//
// To add one: a file that fills this struct, its message in job.proto, and its case in from_job.cc.

#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "trainer/advantages/estimate.h"
#include "trainer/losses/aggregation.h"
#include "trainer/losses/covariance.h"
#include "trainer/losses/distillation.h"
#include "trainer/losses/kto.h"
#include "trainer/losses/segments.h"
#include "trainer/losses/simpo.h"

namespace rein::trainer {

struct Metric {
  std::string name;
  double value = 0;
};

// The target tokens of one microbatch, packed; T of them. fp32.
struct LossInputs {
  at::Tensor policy_logprob_T;     // differentiable
  at::Tensor entropy_T;            // differentiable
  at::Tensor behaviour_logprob_T;  // of the policy that sampled; undefined for SFT
  at::Tensor old_logprob_T;        // what ratios are measured against: behaviour, unless recomputed
  at::Tensor reference_logprob_T;  // undefined unless needs_reference
  at::Tensor advantage_T;          // undefined for SFT
  Segments segments;
  double kl_coefficient = 0;  // in force now
  at::Tensor label_S;         // TrainingSequence::reward of each sequence
  at::Tensor log_partition_T;  // differentiable; only with z_loss
  at::Tensor selected_T;       // with `selection`: 1 for the tokens that it chose, else 0
  at::Tensor candidate_TK, teacher_logprob_TK;  // needs_teacher: ids, and their log-probs under the teacher
  at::Tensor candidate_logprob_TK;              // and under the policy, differentiable
  int64_t vocabulary = 0;
  at::Tensor score_S;         // of a model with a scalar head, differentiable; then there are no log-probs
  at::Tensor score_T, label_T;  // instead, with scores_targets: at each target, and TrainingSequence::target_rewards
  double mismatch_kl = 0;     // needs_mismatch_kl: z of KTO
  at::Tensor logprob_gradient_T, entropy_gradient_T;  // with a loss from outside; the latter may be undefined
};

struct LossTerms {
  at::Tensor loss_T;  // of each token (of each sequence with a scalar head), before aggregation
  std::vector<at::Tensor> token_means;   // [T] each, in the order of Algorithm::token_mean_names
  std::vector<at::Tensor> token_maxima;  // [T] each, in the order of Algorithm::token_max_names
  std::vector<at::Tensor> sequence_means;  // [S] each, in the order of Algorithm::sequence_mean_names
};

// The KL penalty as far as it is not a term of the loss alone.
struct KlControl {
  double coefficient = 0;  // to begin with
  bool in_reward = false;
  std::optional<double> target;  // adaptive: KL per token to keep
  double horizon = 10000;        // adaptive: rollouts
};

// The critic of kGae.
struct CriticSettings {
  std::string path;  // where it starts; empty: where the policy does
  double learning_rate = 1e-5;
  std::optional<double> clip = 0.2;
};

struct TrainingSequence;

// One minibatch as a loss from outside sees it; [sequence][target] each.
struct OutsideBatch {
  uint64_t update = 0;  // from 1
  size_t step = 0;      // optimizer step of the Update, from 0
  std::vector<const TrainingSequence*> sequences;
  std::vector<std::vector<float>> policy_logprobs;
  std::vector<std::vector<float>> entropies;  // empty unless asked for
  TokenRows advantages;
  double kl_coefficient = 0;  // 0: reference log-probs do not count
};

// What it answers: the loss, and its derivatives by each log-prob (and entropy; empty: zeros), shaped as they were.
struct OutsideLoss {
  double loss = 0;
  std::vector<std::vector<float>> logprob_gradients, entropy_gradients;
  std::vector<Metric> metrics;
};

// A loss from outside. The gradient is that of the sum of log-probs times their derivatives (Tinker's
// forward_backward_custom): the same as of the loss itself, at the price of one more forward pass.
struct OutsideLossSettings {
  std::string address;
  double timeout_seconds = 60;
  bool entropies = false;
  // Makes the call; set by who has the connection.
  std::function<absl::StatusOr<OutsideLoss>(const OutsideBatch&)> evaluate;
};

// Which tokens of an Update lower the entropy most; see losses/covariance.h.
struct TokenSelection {
  std::optional<CovarianceRange> range;  // Clip-Cov: a share of those in it, at random; absent: the highest ones
  double share = 0;
};

struct Algorithm {
  std::string name;
  double temperature = 1;   // of the distribution whose log-probs the loss uses
  size_t epochs = 1;        // passes over a batch
  size_t minibatches = 1;   // optimizer steps per pass
  bool needs_behaviour = false;
  bool needs_reference = false;
  bool needs_teacher = false;   // sequences bring the teacher's likeliest tokens
  bool recomputes_old = false;  // a forward pass before the first step
  bool pairs = false;              // sequences come in twos, the chosen one first: never split apart
  bool scalar_head = false;        // the model gives one score at its last token,
  bool scores_targets = false;     // or one at every target
  bool weighs_targets = false;     // TrainingSequence::target_rewards say what each target counts; none: all alike
  bool frozen_reference = false;   // reference log-probs are those of the weights that training began with
  bool needs_mismatch_kl = false;  // with frozen_reference: KTO's z
  bool mask_truncated = false;
  double embedding_noise = 0;   // NEFTune's alpha
  bool log_partition = false;   // the loss reads log_partition_T
  std::optional<TokenSelection> selection;
  bool skips_zero_advantage = false;  // a token with advantage 0 has no loss: its forward is left out
  Aggregation aggregation = Aggregation::kTokenMean;
  double horizon = 1;  // of kSequenceSumFixed
  KlControl kl;
  // Figures that are reported; one without a name is there for `derived` alone.
  std::vector<std::string> token_mean_names, token_max_names, sequence_mean_names;
  // Figures that are functions of the means: of tokens, then of sequences; may be empty.
  std::function<std::vector<Metric>(const std::vector<double>&)> derived;
  std::optional<AdvantageSettings> advantage;  // absent: there are none
  std::optional<CriticSettings> critic;        // with kGae
  std::optional<OutsideLossSettings> outside;  // then `loss` has figures only
  std::function<LossTerms(const LossInputs&)> loss;
};

// Cross-entropy on the targets, plus z_loss * log^2 of the partition function.
Algorithm Sft(Aggregation aggregation, double z_loss = 0);

// losses/distillation.h as a job.
Algorithm Distillation(TeacherDivergence divergence, double temperature);

// Preference optimisation and reward models: losses/{dpo,simpo,orpo,kto,bradley_terry,step_labels}.h as jobs.
Algorithm DirectPreference(const DpoSettings& settings, bool reference_free);
Algorithm SimplePreference(const SimpoSettings& settings);
Algorithm OddsRatioPreference(double beta);
Algorithm MarkedPreference(const KtoSettings& settings);
Algorithm RewardModel(double center_coefficient);
// Reward models that learn numbers (squared error), and which steps are right.
Algorithm ScoreModel();
Algorithm ProcessRewardModel();

}  // namespace rein::trainer

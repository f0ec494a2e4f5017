// An Algorithm is a composition: how rewards become advantages, and how log-probs become a loss.
//
// To add one: a file that fills this struct, its message in job.proto, and its case in from_job.cc.

#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "trainer/advantages/estimate.h"
#include "trainer/losses/aggregation.h"
#include "trainer/losses/segments.h"
#include "trainer/training_sequence.h"

namespace rein::trainer {

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
};

struct LossTerms {
  at::Tensor loss_T;  // of each token, before aggregation
  std::vector<at::Tensor> token_means;   // [T] each, in the order of Algorithm::token_mean_names
  std::vector<at::Tensor> token_maxima;  // [T] each, in the order of Algorithm::token_max_names
};

// The KL penalty as far as it is not a term of the loss alone.
struct KlControl {
  double coefficient = 0;  // to begin with
  bool in_reward = false;
  std::optional<double> target;  // adaptive: KL per token to keep
  double horizon = 10000;        // adaptive: rollouts
};

struct Algorithm {
  std::string name;
  double temperature = 1;   // of the distribution whose log-probs the loss uses
  size_t epochs = 1;        // passes over a batch
  size_t minibatches = 1;   // optimizer steps per pass
  bool needs_behaviour = false;
  bool needs_reference = false;
  bool recomputes_old = false;  // a forward pass before the first step
  bool mask_truncated = false;
  bool skips_zero_advantage = false;  // a token with advantage 0 has no loss: its forward is left out
  Aggregation aggregation = Aggregation::kTokenMean;
  double horizon = 1;  // of kSequenceSumFixed
  KlControl kl;
  std::vector<std::string> token_mean_names, token_max_names;  // figures that are reported
  // Figures that are functions of the means, from the means; may be empty.
  std::function<std::vector<Metric>(const std::vector<double>&)> derived;
  std::optional<AdvantageSettings> advantage;  // absent: there are none
  std::function<LossTerms(const LossInputs&)> loss;
};

// Cross-entropy on the targets.
Algorithm Sft(Aggregation aggregation);

}  // namespace rein::trainer

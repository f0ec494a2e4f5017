// An Algorithm is a composition: how rewards become advantages, and how log-probs become a loss.
//
// To add one: a file that fills this struct, its message in job.proto, and its case in from_job.cc.

#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <string>
#include <vector>

#include "trainer/losses/aggregation.h"
#include "trainer/losses/clipped_surrogate.h"
#include "trainer/losses/kl.h"

namespace rein::trainer {

// The target tokens of one microbatch, packed; T of them. fp32.
struct LossInputs {
  at::Tensor policy_logprob_T;     // differentiable
  at::Tensor entropy_T;            // differentiable
  at::Tensor behaviour_logprob_T;  // of the policy that sampled; undefined for SFT
  at::Tensor reference_logprob_T;  // undefined unless needs_reference
  at::Tensor advantage_T;          // undefined for SFT
};

struct LossTerms {
  at::Tensor loss_T;  // of each token, before aggregation
  std::vector<at::Tensor> token_means;   // [T] each, in the order of Algorithm::token_mean_names
  std::vector<at::Tensor> token_maxima;  // [T] each, in the order of Algorithm::token_max_names
};

struct Algorithm {
  std::string name;
  double temperature = 1;      // of the distribution whose log-probs the loss uses
  size_t minibatches = 1;      // optimizer steps per Update
  bool needs_behaviour = false;
  bool needs_reference = false;
  bool mask_truncated = false;
  Aggregation aggregation = Aggregation::kTokenMean;
  std::vector<std::string> token_mean_names, token_max_names;  // figures that are reported
  // (reward, group) -> advantage of each sequence; empty: the algorithm has none.
  std::function<std::vector<double>(const std::vector<double>&, const std::vector<uint32_t>&)>
      advantages;
  std::function<LossTerms(const LossInputs&)> loss;
};

struct GrpoSettings {
  double temperature = 1;
  size_t minibatches = 1;
  bool mask_truncated = false;
  Aggregation aggregation = Aggregation::kTokenMean;
  ClipRange clip;
  double kl_coefficient = 0;
  KlEstimator kl_estimator = KlEstimator::kK3;
  bool normalize_by_std = true;
  double advantage_epsilon = 1e-6;
};
Algorithm Grpo(const GrpoSettings& settings);

// Cross-entropy on the targets.
Algorithm Sft(Aggregation aggregation);

}  // namespace rein::trainer

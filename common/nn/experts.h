// A mixture of experts: a router sends each token to a few of many feed-forward layers (arXiv 1701.06538).
//
// The router is fp32 whatever the weights are. No token is dropped, unless a training pass limits what an expert takes
// (RouterRecord::capacity). The outputs of a token's experts are added in
// the order in which they were chosen, so that a token's result does not depend on the others.
//
// T packed tokens, D model, E experts, I width of an expert, K chosen experts.

#pragma once

#include <ATen/core/Tensor.h>

#include <memory>

#include "common/nn/activation.h"
#include "common/nn/router_record.h"
#include "common/nn/weight.h"

namespace rein::nn {

// How logits become choices and weights.
struct RoutingRule {
  enum class Score {
    kSoftmax,          // over all experts
    kSigmoid,          // of each expert alone (DeepSeek-V3, arXiv 2412.19437)
    kSoftmaxOfChosen,  // choice by logits, softmax over the chosen (gpt-oss)
  };
  enum class GroupScore { kHighest, kTwoHighest };

  int64_t experts = 0;
  int64_t chosen = 0;
  Score score = Score::kSoftmax;
  bool normalised = false;        // weights are divided by their sum ...
  double sum_epsilon = 0;         // ... plus this
  double multiplier = 1;          // then multiplied
  int64_t groups = 1;             // experts come in so many groups of neighbours, ...
  int64_t chosen_groups = 1;      // ... and only these are chosen from,
  GroupScore group_score = GroupScore::kHighest;  // the best by the sum of their one or two best experts
};

struct Choice {
  at::Tensor expert_TK;  // int64
  at::Tensor weight_TK;  // fp32, differentiable by the logits
};

// logits_TE fp32; correction_E fp32 is added to scores for the choice alone and may be undefined.
Choice ChooseExperts(const at::Tensor& logits_TE, const at::Tensor& correction_E,
                     const RoutingRule& rule);

struct ExpertWeights {
  Weight router_ED, router_bias_E, correction_E;  // the last two may be undefined
  Weight gate_up;                                 // [E, 2I, D]: [gate; up]
  Weight gate_up_bias;                            // [E, 2I] or undefined
  Weight down;                                    // [E, D, I]
  Weight down_bias;                               // [E, D] or undefined
};

// Where a router stands, and who notes what it does; no record: nobody.
struct RouterPlace {
  int64_t layer = 0, layers = 1;
  std::shared_ptr<RouterRecord> record;
  int64_t router = 0;  // among the layers that have one
  at::Tensor kept_SK = {};  // int16: the choices of token t go to row slot_T[t]; undefined: nowhere
  at::Tensor slot_T = {};   // int64
};

// x_TD -> [T, D].
at::Tensor MixtureOfExperts(const at::Tensor& x_TD, const ExpertWeights& weights,
                            const RoutingRule& rule, const Gate& gate, const RouterPlace& place = {});

}  // namespace rein::nn

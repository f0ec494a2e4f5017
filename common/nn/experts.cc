#include "common/nn/experts.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <utility>
#include <vector>

#include "common/kernels/expert_rows.h"
#include "common/nn/expert_order.h"
#include "common/nn/functions.h"
#include "common/nn/grouped_experts.h"
#include "common/nn/launched.h"

namespace rein::nn {
namespace {

// LibTorch's products on a CPU keep a row's bits only when their number of rows is a multiple of this.
constexpr int64_t kRowPadding = 8;

Weight Of(const Weight& stacked, int64_t expert) {
  if (!stacked.defined()) return {};
  auto part = [&](const at::Tensor& of) { return of.defined() ? of[expert] : of; };
  Weight one{part(stacked.value), part(stacked.grad)};
  if (stacked.quantised != nullptr) one.quantised = std::make_shared<QuantisedMatrix>(stacked.quantised->At(expert));
  const int64_t rows = stacked.size(1), begin = expert * rows;
  for (const LowRankUpdate& u : stacked.updates) {
    if (u.first_row < begin || u.first_row >= begin + rows) continue;
    one.updates.push_back(u);
    one.updates.back().first_row -= begin;
  }
  return one;
}

at::Tensor Scores(const at::Tensor& logits_TE, RoutingRule::Score score) {
  switch (score) {
    case RoutingRule::Score::kSoftmax:
      return at::softmax(logits_TE, -1);
    case RoutingRule::Score::kSigmoid:
      return at::sigmoid(logits_TE);
    case RoutingRule::Score::kSoftmaxOfChosen:
      return logits_TE;
  }
  return logits_TE;
}

// The `count` largest of each row; on a GPU the lower index among equals, whatever the number of rows.
at::Tensor Largest(const at::Tensor& value_TE, int64_t count) {
  if (!value_TE.is_cuda() || value_TE.size(1) > kernels::kMostTopColumns) return std::get<1>(value_TE.topk(count, -1));
  at::Tensor value = value_TE.contiguous(), index = at::empty({value.size(0), count}, value.options().dtype(at::kLong));
  Launched(kernels::TopColumns(value.const_data_ptr<float>(), index.mutable_data_ptr<int64_t>(), value.size(0),
                               value.size(1), count, Stream()));
  return index;
}

// Scores outside the chosen groups become -inf.
at::Tensor WithinGroups(const at::Tensor& score_TE, const RoutingRule& rule) {
  if (rule.groups == 1) return score_TE;
  at::Tensor grouped = score_TE.unflatten(1, {rule.groups, -1});
  at::Tensor group_score =
      rule.group_score == RoutingRule::GroupScore::kHighest
          ? grouped.amax(-1)
          : std::get<0>(grouped.topk(std::min<int64_t>(2, grouped.size(2)), -1)).sum(-1);
  at::Tensor best = Largest(group_score, rule.chosen_groups);
  at::Tensor out = at::ones_like(group_score, at::kBool).scatter_(1, best, false);
  return grouped.masked_fill(out.unsqueeze(-1), -std::numeric_limits<double>::infinity()).flatten(1);
}

at::Tensor WeightsOf(const at::Tensor& score_TE, const at::Tensor& expert_TK, const RoutingRule& rule) {
  at::Tensor weight_TK = score_TE.gather(1, expert_TK);
  if (rule.score == RoutingRule::Score::kSoftmaxOfChosen) weight_TK = at::softmax(weight_TK, -1);
  if (rule.normalised) weight_TK = weight_TK / (weight_TK.sum(-1, true) + rule.sum_epsilon);
  return rule.multiplier == 1 ? weight_TK : weight_TK * rule.multiplier;
}

// Rows of x, sorted by expert, through each expert's layer; rows of an expert beyond `most` give 0.
at::Tensor RunExperts(const at::Tensor& x_ND, const at::Tensor& count_E, const ExpertWeights& w,
                      const Gate& gate, int64_t most) {
  at::Tensor host = count_E.to(at::kCPU);
  const int64_t* count = host.const_data_ptr<int64_t>();
  std::vector<at::Tensor> parts;
  for (int64_t expert = 0, begin = 0; expert < count_E.size(0); begin += count[expert++]) {
    const int64_t rows = std::min(count[expert], most);
    if (count[expert] == 0) continue;
    at::Tensor x = x_ND.narrow(0, begin, rows);
    const int64_t padding = x.is_cpu() ? (kRowPadding - rows % kRowPadding) % kRowPadding : 0;
    if (padding > 0) x = at::constant_pad_nd(x, {0, 0, 0, padding});
    at::Tensor y = Gated(Projection(x, Of(w.gate_up, expert), Of(w.gate_up_bias, expert)), gate);
    y = Projection(y, Of(w.down, expert), Of(w.down_bias, expert));
    parts.push_back(y.narrow(0, 0, rows));
    if (rows < count[expert]) parts.push_back(at::zeros({count[expert] - rows, y.size(1)}, y.options().requires_grad(false)));
  }
  return at::cat(parts, 0);
}

// Which choices stand behind the first `most` of their expert; place_N: of each choice, among all sorted by expert.
at::Tensor BeyondCapacity(const at::Tensor& count_E, const at::Tensor& place_N, const at::Tensor& expert_N, int64_t most) {
  at::Tensor first_E = count_E.cumsum(0) - count_E;
  return (place_N - first_E.index_select(0, expert_N)) >= most;
}

// The choices that the record has for this router, where it has some.
at::Tensor Replayed(const at::Tensor& own_TK, const RouterPlace& place) {
  RouterRecord& record = *place.record;
  at::Tensor wanted_TK = record.replay_TRK.select(1, place.router), known_TK = wanted_TK >= 0;
  if (!record.closed) {
    at::Tensor same_TK = (wanted_TK.unsqueeze(2) == own_TK.unsqueeze(1)).any(2);
    for (auto [sum, counted] : {std::pair{&record.replayed, known_TK}, {&record.differing, known_TK.logical_and(same_TK.logical_not())}}) {
      at::Tensor count = counted.sum().to(at::kFloat);
      *sum = sum->defined() ? *sum + count : count;
    }
  }
  return at::where(known_TK, wanted_TK, own_TK);
}

}  // namespace

Choice ChooseExperts(const at::Tensor& logits_TE, const at::Tensor& correction_E,
                     const RoutingRule& rule) {
  at::Tensor score_TE = Scores(logits_TE, rule.score), wanted = score_TE.detach();
  if (correction_E.defined()) wanted = wanted + correction_E;
  at::Tensor expert_TK = Largest(WithinGroups(wanted, rule), rule.chosen);
  return {expert_TK, WeightsOf(score_TE, expert_TK, rule)};
}

at::Tensor MixtureOfExperts(const at::Tensor& x_TD, const ExpertWeights& weights,
                            const RoutingRule& rule, const Gate& gate, const RouterPlace& place) {
  at::Tensor logits = RouterLogits(x_TD, weights);
  at::Tensor correction;
  if (weights.correction_E.defined()) correction = weights.correction_E.value.to(at::kFloat);
  Choice choice = ChooseExperts(logits, correction, rule);
  if (place.record != nullptr && place.record->replay_TRK.defined()) choice.expert_TK = Replayed(choice.expert_TK, place);
  if (place.record != nullptr) {
    const bool sigmoid = rule.score == RoutingRule::Score::kSigmoid;
    logits = Recorded(logits, choice.expert_TK, sigmoid, place.layer, place.layers, place.record);
    choice.weight_TK = WeightsOf(Scores(logits, rule.score), choice.expert_TK, rule);
  }
  if (place.kept_SK.defined()) place.kept_SK.index_copy_(0, place.slot_T, choice.expert_TK.to(at::kShort));
  const bool limited = place.record != nullptr && place.record->capacity > 0;
  if (!limited && GroupedExpertsTake(x_TD, weights)) return GroupedExperts(x_TD, choice, weights, gate);
  // Each token once for each of its experts, sorted by expert, and back.
  at::Tensor expert_N = choice.expert_TK.flatten();
  const ExpertOrder order = SortByExpert(choice.expert_TK, rule.experts);
  at::Tensor place_N = order.place_TK.flatten();
  at::Tensor copies =
      x_TD.unsqueeze(1).expand({-1, rule.chosen, -1}).reshape({-1, x_TD.size(1)});
  at::Tensor count_E = at::diff(order.end_E.to(at::kLong), /*n=*/1, /*dim=*/0, at::zeros({1}, expert_N.options()));
  int64_t most = place_N.size(0);
  if (limited) {
    most = static_cast<int64_t>(std::ceil(place.record->capacity * static_cast<double>(most) / static_cast<double>(rule.experts)));
    at::Tensor dropped_TK = BeyondCapacity(count_E, place_N, expert_N, most).view_as(choice.expert_TK);
    choice.weight_TK = choice.weight_TK.masked_fill(dropped_TK, 0);
    if (!place.record->closed) place.record->dropped.add_(dropped_TK.sum());
  }
  at::Tensor y_ND = RunExperts(copies.index_select(0, order.choice_N), count_E, weights, gate, most);
  at::Tensor y_TKD = y_ND.index_select(0, place_N).view({x_TD.size(0), rule.chosen, -1});
  at::Tensor weighted = y_TKD.to(at::kFloat) * choice.weight_TK.unsqueeze(-1);
  return weighted.sum(1).to(x_TD.scalar_type());
}

}  // namespace rein::nn

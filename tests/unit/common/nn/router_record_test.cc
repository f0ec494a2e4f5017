// The losses and limits of routers against the published formulas, differentiated by LibTorch.

#include "common/nn/router_record.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "common/nn/experts.h"

namespace rein::nn {
namespace {

constexpr int64_t kTokens = 11, kExperts = 5, kChosen = 2;

struct Case {
  at::Tensor logits = at::randn({kTokens, kExperts});
  at::Tensor expert_TK = std::get<1>(logits.topk(kChosen, -1));
  at::Tensor sequence_T = at::tensor({0, 0, 0, 0, 1, 1, 2, 2, 2, 2, 2}, at::kLong);
};

// What the record adds to the gradient of the logits, beside that of their weighted sum.
at::Tensor Added(const Case& c, bool sigmoid, const std::shared_ptr<RouterRecord>& record, int layers = 1) {
  at::Tensor leaf = c.logits.clone().requires_grad_(true), weight = at::randn({kTokens, kExperts});
  at::Tensor sum = at::zeros({});
  for (int layer = 0; layer < layers; ++layer) {
    sum = sum + (Recorded(leaf, c.expert_TK, sigmoid, layer, layers, record) * weight).sum();
  }
  record->Close();
  sum.backward();
  return leaf.grad() - weight * layers;
}

at::Tensor GradientOf(const at::Tensor& logits, const std::function<at::Tensor(const at::Tensor&)>& loss, double* value) {
  at::Tensor leaf = logits.clone().requires_grad_(true), l = loss(leaf);
  l.backward();
  *value = l.item<double>();
  return leaf.grad();
}

void ExpectClose(const at::Tensor& a, const at::Tensor& b) { EXPECT_LE((a - b).abs().max().item<double>(), 1e-6); }

// As DeepSeek's own code has it (modeling_deepseek.py, MoEGate with seq_aux).
at::Tensor SequenceLoss(const Case& c, bool sigmoid, const at::Tensor& logits) {
  at::Tensor scores = sigmoid ? at::sigmoid(logits) : at::softmax(logits, -1);
  if (sigmoid) scores = scores / scores.sum(-1, true);
  at::Tensor loss = at::zeros({});
  for (auto [begin, length] : {std::pair{0, 4}, {4, 2}, {6, 5}}) {
    at::Tensor chosen = c.expert_TK.narrow(0, begin, length).flatten();
    at::Tensor ce = at::zeros({kExperts}).scatter_add_(0, chosen, at::ones({length * kChosen}));
    ce.div_(static_cast<double>(length * kChosen) / kExperts);
    loss = loss + (ce * scores.narrow(0, begin, length).mean(0)).sum();
  }
  return loss / 3;
}

TEST(RouterRecordTest, SequenceLossIsDeepSeeks) {
  at::manual_seed(3);
  for (bool sigmoid : {false, true}) {
    Case c;
    auto record = std::make_shared<RouterRecord>();
    record->balance = 0.7;
    record->share = 0.5;
    record->level = RouterRecord::Level::kSequence;
    record->sequence_T = c.sequence_T;
    double value = 0;
    at::Tensor wanted = GradientOf(c.logits, [&](const at::Tensor& x) { return 0.7 * SequenceLoss(c, sigmoid, x); }, &value);
    ExpectClose(Added(c, sigmoid, record, 2), wanted * (0.5 * 2));
    EXPECT_NEAR(record->BalanceLoss(), 2 * value, 1e-6) << "layers are added up";
  }
}

TEST(RouterRecordTest, ZLossIsTheMeanSquareOfTheLogPartition) {
  at::manual_seed(4);
  Case c;
  auto record = std::make_shared<RouterRecord>();
  record->z_loss = 0.3;
  double value = 0;
  at::Tensor wanted = GradientOf(
      c.logits, [](const at::Tensor& x) { return 0.3 * at::logsumexp(x, -1).square().mean(); }, &value);
  ExpectClose(Added(c, false, record, 3), wanted * 3);
  EXPECT_NEAR(record->ZLoss(), 3 * value, 1e-5);
}

TEST(RouterRecordTest, GlobalLossTakesTheSharesOfTheStep) {
  at::manual_seed(5);
  Case c;
  auto record = std::make_shared<RouterRecord>();
  record->balance = 0.2;
  record->z_loss = 0.1;
  record->level = RouterRecord::Level::kGlobal;
  record->even_E = at::rand({kExperts});
  double value = 0;
  at::Tensor wanted = GradientOf(c.logits, [&](const at::Tensor& x) {
    return 0.2 * kExperts * (record->even_E * at::softmax(x, -1).mean(0)).sum() + 0.1 * at::logsumexp(x, -1).square().mean();
  }, &value);
  ExpectClose(Added(c, false, record), wanted);
  EXPECT_NEAR(record->BalanceLoss() + record->ZLoss(), value, 1e-6);
}

TEST(CapacityTest, LaterTokensPassAFullExpertBy) {
  at::manual_seed(6);
  constexpr int64_t kDim = 4, kWidth = 6;
  RoutingRule rule;
  rule.experts = kExperts;
  rule.chosen = kChosen;
  ExpertWeights w;
  w.router_ED = {at::randn({kExperts, kDim}), {}};
  w.gate_up = {at::randn({kExperts, 2 * kWidth, kDim}), {}};
  w.down = {at::randn({kExperts, kDim, kWidth}), {}};
  at::Tensor x = at::randn({kTokens, kDim});
  auto record = std::make_shared<RouterRecord>();
  record->capacity = 0.6;
  const auto most = static_cast<int64_t>(std::ceil(0.6 * kTokens * kChosen / kExperts));
  at::Tensor limited = MixtureOfExperts(x, w, rule, {}, {0, 1, record});

  Choice choice = ChooseExperts(at::linear(x, w.router_ED.value), {}, rule);
  std::vector<int64_t> taken(kExperts, 0);
  at::Tensor wanted = at::zeros({kTokens, kDim});
  int64_t dropped = 0;
  for (int64_t t = 0; t < kTokens; ++t) {
    for (int64_t k = 0; k < kChosen; ++k) {
      const auto e = choice.expert_TK[t][k].item<int64_t>();
      if (taken[static_cast<size_t>(e)]++ >= most) {
        ++dropped;
        continue;
      }
      at::Tensor up = at::linear(x[t], w.gate_up.value[e]);
      wanted[t] += choice.weight_TK[t][k] * at::linear(at::silu(up.narrow(0, 0, kWidth)) * up.narrow(0, kWidth, kWidth), w.down.value[e]);
    }
  }
  EXPECT_GT(dropped, 0);
  EXPECT_EQ(record->dropped.item<int64_t>(), dropped);
  EXPECT_LE((limited - wanted).abs().max().item<float>(), 1e-5);
  record = std::make_shared<RouterRecord>();
  record->capacity = kExperts;
  at::Tensor all = MixtureOfExperts(x, w, rule, {}, {0, 1, record});
  EXPECT_EQ(record->dropped.item<int64_t>(), 0);
  EXPECT_TRUE(at::equal(all, MixtureOfExperts(x, w, rule, {})));
}

}  // namespace
}  // namespace rein::nn

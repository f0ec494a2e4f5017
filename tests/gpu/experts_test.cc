// Experts on the GPU against their plain twin, expert by expert in fp32 on the CPU.

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include "common/kernels/expert_rows.h"
#include "common/nn/experts.h"
#include "common/tensor/cuda_runtime.h"

namespace rein::gpu {
namespace {

at::TensorOptions Bf16() { return at::TensorOptions(at::kCUDA).dtype(at::kBFloat16); }

double RelativeError(const at::Tensor& a, const at::Tensor& b) {
  at::Tensor x = a.to(at::kCPU, at::kDouble), y = b.to(at::kCPU, at::kDouble);
  return ((x - y).norm() / (y.norm() + 1e-30)).item<double>();
}

struct Case {
  int64_t tokens, width, experts, inner, chosen;
  bool biases = false;
};

nn::Weight RandomWeight(std::vector<int64_t> shape, double scale) {
  at::Tensor value = (at::randn(shape, Bf16()) * scale).contiguous();
  return {value, at::zeros(shape, Bf16().dtype(at::kFloat))};
}

nn::Weight OnCpu(const nn::Weight& weight) {
  if (!weight.defined()) return {};
  return {weight.value.to(at::kCPU, at::kFloat), at::zeros(weight.value.sizes(), at::kFloat)};
}

nn::ExpertWeights RandomExperts(const Case& c) {
  nn::ExpertWeights w;
  w.router_ED = RandomWeight({c.experts, c.width}, 0.2);
  w.gate_up = RandomWeight({c.experts, 2 * c.inner, c.width}, 0.05);
  w.down = RandomWeight({c.experts, c.width, c.inner}, 0.05);
  if (!c.biases) return w;
  w.router_bias_E = RandomWeight({c.experts}, 0.2);
  w.gate_up_bias = RandomWeight({c.experts, 2 * c.inner}, 0.5);
  w.down_bias = RandomWeight({c.experts, c.width}, 0.5);
  return w;
}

nn::RoutingRule RuleOf(const Case& c) {
  nn::RoutingRule rule;
  rule.experts = c.experts;
  rule.chosen = c.chosen;
  rule.normalised = true;
  return rule;
}

const Case kCases[] = {{300, 64, 8, 96, 2},        {1, 128, 16, 64, 4},         {1000, 256, 64, 128, 8},
                       {50, 64, 128, 32, 8},       {777, 192, 24, 72, 3, true}, {4096, 512, 128, 256, 8}};

TEST(ExpertsGpuTest, ForwardAndBackwardMatchTheReference) {
  at::manual_seed(7);
  for (const Case& c : kCases) {
    const nn::ExpertWeights w = RandomExperts(c);
    nn::ExpertWeights plain = {OnCpu(w.router_ED), OnCpu(w.router_bias_E), {}, OnCpu(w.gate_up), OnCpu(w.gate_up_bias), OnCpu(w.down), OnCpu(w.down_bias)};
    at::Tensor x = at::randn({c.tokens, c.width}, Bf16()).requires_grad_(true);
    at::Tensor wide = x.detach().to(at::kCPU, at::kFloat).requires_grad_(true);
    at::Tensor y = nn::MixtureOfExperts(x, w, RuleOf(c), {}), expected = nn::MixtureOfExperts(wide, plain, RuleOf(c), {});
    EXPECT_LE(RelativeError(y, expected), 1.5e-2) << c.tokens << " tokens, " << c.experts << " experts";
    at::Tensor dy = at::randn_like(y);
    y.backward(dy);
    expected.backward(dy.to(at::kCPU, at::kFloat));
    EXPECT_LE(RelativeError(x.grad(), wide.grad()), 2e-2);
    for (auto [ours, theirs, name] :
         {std::tuple{w.router_ED, plain.router_ED, "router"}, {w.gate_up, plain.gate_up, "gate_up"}, {w.down, plain.down, "down"},
          {w.router_bias_E, plain.router_bias_E, "router bias"}, {w.gate_up_bias, plain.gate_up_bias, "gate_up bias"},
          {w.down_bias, plain.down_bias, "down bias"}}) {
      if (!ours.defined()) continue;
      EXPECT_LE(RelativeError(ours.grad, theirs.grad), 2.5e-2) << name << ", " << c.experts << " experts";
    }
  }
}

TEST(ExpertsGpuTest, ATokenKeepsItsBitsWhateverStandsBesideIt) {
  at::NoGradGuard no_grad;
  at::manual_seed(8);
  for (const Case& c : kCases) {
    const nn::ExpertWeights w = RandomExperts(c);
    at::Tensor x = at::randn({c.tokens, c.width}, Bf16()), all = nn::MixtureOfExperts(x, w, RuleOf(c), {});
    for (int64_t rows : {1, 2, 7, 64, 256, 700}) {
      if (rows > c.tokens) continue;
      for (int64_t first : {int64_t{0}, (c.tokens - rows) / 2, c.tokens - rows}) {
        EXPECT_TRUE(at::equal(nn::MixtureOfExperts(x.narrow(0, first, rows), w, RuleOf(c), {}), all.narrow(0, first, rows)))
            << rows << " of " << c.tokens << " tokens from " << first << ", " << c.experts << " experts";
      }
    }
  }
}

TEST(ExpertsGpuTest, GradientsHaveTheSameBitsTwice) {
  at::manual_seed(9);
  const Case c{2000, 256, 64, 128, 8, true};
  const nn::ExpertWeights w = RandomExperts(c);
  at::Tensor x = at::randn({c.tokens, c.width}, Bf16()), dy = at::randn_like(x);
  std::vector<std::vector<at::Tensor>> runs;
  for (int run = 0; run < 2; ++run) {
    for (const nn::Weight* weight : {&w.router_ED, &w.router_bias_E, &w.gate_up, &w.gate_up_bias, &w.down, &w.down_bias}) {
      at::Tensor(weight->grad).zero_();
    }
    at::Tensor leaf = x.clone().requires_grad_(true);
    nn::MixtureOfExperts(leaf, w, RuleOf(c), {}).backward(dy);
    runs.push_back({leaf.grad(), w.router_ED.grad.clone(), w.gate_up.grad.clone(), w.gate_up_bias.grad.clone(), w.down.grad.clone(), w.down_bias.grad.clone()});
  }
  for (size_t i = 0; i < runs[0].size(); ++i) EXPECT_TRUE(at::equal(runs[0][i], runs[1][i])) << i;
}

TEST(TopColumnsGpuTest, FindsTheLargestAndTheLowestAmongEquals) {
  at::manual_seed(10);
  for (auto [rows, columns, count] : {std::tuple{1, 8, 2}, {300, 128, 8}, {77, 256, 8}, {5, 1024, 16}, {33, 3, 3}}) {
    at::Tensor values = at::randint(-6, 6, {rows, columns}, Bf16().dtype(at::kFloat));  // many are equal
    values.select(1, 0).fill_(-std::numeric_limits<float>::infinity());
    at::Tensor index = at::empty({rows, count}, values.options().dtype(at::kLong));
    ASSERT_TRUE(kernels::TopColumns(values.const_data_ptr<float>(), index.mutable_data_ptr<int64_t>(), rows, columns, count,
                                    tensor::CurrentStream()).ok());
    at::Tensor expected = std::get<1>(values.to(at::kCPU).sort(/*stable=*/true, /*dim=*/1, /*descending=*/true)).narrow(1, 0, count);
    EXPECT_TRUE(at::equal(index.to(at::kCPU), expected)) << rows << " x " << columns;
  }
}

}  // namespace
}  // namespace rein::gpu

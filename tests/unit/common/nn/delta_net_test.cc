// The chunks of training against the token-by-token recurrence of generation, and their gradient against the formula's.

#include "common/nn/delta_net.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

namespace rein::nn {
namespace {

constexpr DeltaShape kShape{.key_heads = 2, .value_heads = 4, .key_dim = 8, .value_dim = 6, .taps = 4};
constexpr int64_t kWidth = 24, kPage = 16;

Weight Random(std::vector<int64_t> sizes, double scale) {
  at::Tensor value = at::randn(sizes) * scale;
  return {value, at::zeros(sizes)};
}

struct Net {
  DeltaWeights weights{.qkvz = Random({kShape.mixed_dim() + kShape.value_heads * kShape.value_dim, kWidth}, 0.3),
                       .ba = Random({2 * kShape.value_heads, kWidth}, 0.3),
                       .conv = Random({kShape.mixed_dim(), kShape.taps}, 0.5),
                       .decay_V = Random({kShape.value_heads}, 0.5),
                       .dt_bias_V = Random({kShape.value_heads}, 0.5),
                       .norm_W = Random({kShape.value_dim}, 1)};

  std::vector<Weight*> all() {
    return {&weights.qkvz, &weights.ba, &weights.conv, &weights.decay_V, &weights.dt_bias_V, &weights.norm_W};
  }
  at::Tensor Run(const at::Tensor& x_TD, const SequenceView& view) const { return DeltaNet(x_TD, kShape, weights, 1e-6, view, 0); }
};

// Every sequence token by token, its state kept with its pages.
at::Tensor ByTokens(const Net& net, const at::Tensor& x_TD, SequenceView view, const std::vector<int64_t>& lengths) {
  const int64_t most = (*std::max_element(lengths.begin(), lengths.end()) + kPage - 1) / kPage;
  const auto sequences = static_cast<int64_t>(lengths.size());
  std::vector<KvPages> layers(1);
  layers[0].key = at::zeros({sequences * most, kShape.value_heads, kShape.key_dim, kShape.value_dim});
  layers[0].value = at::zeros({sequences * most, kShape.mixed_dim(), kShape.taps - 1});
  const PageMap map{.layers = &layers, .page_tokens = kPage, .pages_BP = at::arange(sequences * most, at::kInt).view({sequences, most})};
  view.pages = &map;
  at::NoGradGuard no_grad;
  return net.Run(x_TD, view);
}

TEST(DeltaNetTest, ChunksGiveWhatTokenByTokenGives) {
  const Net net;
  const std::vector<int64_t> lengths = {1, 63, 64, 65, 128, 200};
  const SequenceView view = PackedSequences(lengths, at::kCPU);
  at::Tensor x_TD = at::randn({std::accumulate(lengths.begin(), lengths.end(), int64_t{0}), kWidth});
  at::NoGradGuard no_grad;
  at::Tensor chunks = net.Run(x_TD, view), tokens = ByTokens(net, x_TD, view, lengths);
  ASSERT_EQ(chunks.sizes(), tokens.sizes());
  EXPECT_LE((chunks - tokens).abs().max().item<float>(), 2e-5 * tokens.abs().max().item<float>());
}

// The formula of delta_net.h, token after token, on plain tensors: x [L, D] and the weights in the order of Net::all().
at::Tensor Formula(const at::Tensor& x_LD, const std::vector<at::Tensor>& w) {
  const int64_t length = x_LD.size(0), mixed_dim = kShape.mixed_dim(), keys = kShape.key_heads * kShape.key_dim;
  at::Tensor qkvz = x_LD.matmul(w[0].t()), ba = x_LD.matmul(w[1].t());
  at::Tensor window = at::constant_pad_nd(qkvz.narrow(1, 0, mixed_dim), {0, 0, kShape.taps - 1, 0}), sum = at::zeros({length, mixed_dim});
  for (int64_t j = 0; j < kShape.taps; ++j) sum = sum + window.narrow(0, j, length) * w[2].select(1, j);
  at::Tensor mixed = at::silu(sum);
  auto unit = [&](int64_t begin) {
    at::Tensor x = mixed.narrow(1, begin, keys).view({length, kShape.key_heads, kShape.key_dim});
    x = x.repeat_interleave(kShape.value_heads / kShape.key_heads, 1);
    return x / (x.square().sum(-1, true) + 1e-6).sqrt();
  };
  at::Tensor q = unit(0) / std::sqrt(static_cast<double>(kShape.key_dim)), k = unit(keys);
  at::Tensor v = mixed.narrow(1, 2 * keys, kShape.value_heads * kShape.value_dim).view({length, kShape.value_heads, kShape.value_dim});
  at::Tensor beta = at::sigmoid(ba.narrow(1, 0, kShape.value_heads));
  at::Tensor decay = (-w[3].exp() * at::softplus(ba.narrow(1, kShape.value_heads, kShape.value_heads) + w[4])).exp();
  at::Tensor state = at::zeros({kShape.value_heads, kShape.key_dim, kShape.value_dim});
  std::vector<at::Tensor> out;
  for (int64_t t = 0; t < length; ++t) {
    state = state * decay[t].view({-1, 1, 1});
    at::Tensor key = k[t].unsqueeze(-1);
    state = state + key * ((v[t] - (state * key).sum(1)) * beta[t].unsqueeze(-1)).unsqueeze(1);
    out.push_back((state * q[t].unsqueeze(-1)).sum(1));
  }
  at::Tensor o = at::stack(out);
  o = o * (o.square().mean(-1, true) + 1e-6).rsqrt() * w[5];
  at::Tensor z = qkvz.narrow(1, mixed_dim, kShape.value_heads * kShape.value_dim);
  return o.flatten(1) * at::silu(z);
}

TEST(DeltaNetTest, ItsGradientIsThatOfTheFormula) {
  Net net;
  const std::vector<int64_t> lengths = {3, 150};
  const SequenceView view = PackedSequences(lengths, at::kCPU);
  at::Tensor x_TD = at::randn({153, kWidth}).requires_grad_(true), factor = at::randn({153, kShape.value_heads * kShape.value_dim});
  at::Tensor out = net.Run(x_TD, view);
  (out * factor).sum().backward();

  at::Tensor plain_TD = x_TD.detach().clone().requires_grad_(true);
  std::vector<at::Tensor> plain;
  for (Weight* w : net.all()) plain.push_back(w->value.clone().requires_grad_(true));
  at::Tensor wanted = at::cat({Formula(plain_TD.narrow(0, 0, 3), plain), Formula(plain_TD.narrow(0, 3, 150), plain)});
  (wanted * factor).sum().backward();
  auto error = [](const at::Tensor& actual, const at::Tensor& expected) {
    return ((actual - expected).norm() / expected.norm()).item<double>();
  };
  EXPECT_LE(error(out.detach(), wanted.detach()), 1e-4);
  EXPECT_LE(error(x_TD.grad(), plain_TD.grad()), 1e-3);
  for (size_t i = 0; i < plain.size(); ++i) EXPECT_LE(error(net.all()[i]->grad, plain[i].grad()), 1e-3) << "weight " << i;
}

}  // namespace
}  // namespace rein::nn

// Each kernel, and each LibTorch operation that only a GPU has, against its plain reference on fresh
// random input.

#include <array>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "common/kernels/digest.h"
#include "common/kernels/exactness.h"
#include "common/kernels/few_rows_projection.h"
#include "common/kernels/filter_logits.h"
#include "common/kernels/logits.h"
#include "common/kernels/projection.h"
#include "common/nn/activation.h"
#include "common/nn/functions.h"
#include "common/nn/head.h"
#include "common/nn/norm.h"
#include "common/nn/query_key_value.h"
#include "common/random/philox.h"
#include "common/tensor/cuda_runtime.h"
#include "common/weights/digest.h"
#include "common/weights/registry.h"
#include "rollout/sampling/gumbel_noise.h"
#include "rollout/sampling/sampler.h"
#include "trainer/optim/adamw.h"

namespace rein::gpu {
namespace {

at::TensorOptions Bf16() { return at::TensorOptions(at::kCUDA).dtype(at::kBFloat16); }

double RelativeError(const at::Tensor& actual, const at::Tensor& wanted) {
  at::Tensor a = actual.to(at::kDouble), w = wanted.to(at::kDouble);
  return ((a - w).norm() / (w.norm() + 1e-3)).item<double>();
}

TEST(DigestGpuTest, EqualsTheHostDigest) {
  at::Tensor bytes = at::randint(256, {3 << 20}, at::TensorOptions(at::kCUDA).dtype(at::kByte));
  at::Tensor host = bytes.to(at::kCPU);
  std::vector<kernels::ByteRange> ranges = {{0, 3 << 20}, {256, 1000}, {512, 7}, {1024, 0}, {4096, 1 << 20}, {6, 30}};
  std::vector<uint64_t> digests;
  ASSERT_TRUE(kernels::DigestRanges(bytes.const_data_ptr(), ranges, tensor::CurrentStream(), &digests).ok());
  for (size_t i = 0; i < ranges.size(); ++i) {
    const auto* data = host.const_data_ptr<uint8_t>() + ranges[i].offset;
    EXPECT_EQ(digests[i], weights::Digest(data, ranges[i].size)) << i;
  }
}

// Of vocabularies whose rows are aligned for the kernels' loads, and not.
class HeadGpuTest : public testing::TestWithParam<int64_t> {};
INSTANTIATE_TEST_SUITE_P(Vocabularies, HeadGpuTest, testing::Values(49152, 49155, 1003));

TEST_P(HeadGpuTest, MatchesLogSoftmaxInDouble) {
  const int64_t vocabulary = GetParam();
  at::Tensor hidden = at::randn({300, 64}, Bf16()), weight = at::randn({vocabulary, 64}, Bf16()) * 0.2;
  at::Tensor target = at::randint(vocabulary, {300}, at::TensorOptions(at::kCUDA).dtype(at::kLong));
  nn::Weight head{weight, at::zeros({vocabulary, 64}, weight.options().dtype(at::kFloat))};
  at::Tensor a = hidden.clone().requires_grad_(true);
  at::Tensor b = hidden.to(at::kDouble).requires_grad_(true), w = weight.to(at::kDouble).requires_grad_(true);
  nn::TokenLogprobs out = nn::HeadLogprobs(a, head, target, 0.8);
  at::Tensor log_p = at::log_softmax(b.matmul(w.t()) / 0.8, 1);
  at::Tensor wanted = log_p.gather(1, target.unsqueeze(1)).squeeze(1);
  EXPECT_LE((out.logprob_N - wanted).abs().max().item<double>(), 0.05);
  at::Tensor dy = at::randn({300}, at::TensorOptions(at::kCUDA));
  out.logprob_N.backward(dy);
  wanted.backward(dy.to(at::kDouble));
  EXPECT_LE(RelativeError(a.grad(), b.grad()), 2e-2);
  EXPECT_LE(RelativeError(head.grad, w.grad()), 2e-2);
}

// What the families put between the product and the logits; sampled logits are those that are scored.
TEST_P(HeadGpuTest, RulesMatchLogSoftmaxInDouble) {
  const int64_t vocabulary = GetParam();
  for (nn::HeadRule rule : {nn::HeadRule{0.3}, nn::HeadRule{1, 3.0}, nn::HeadRule{1, 0, true}}) {
    at::Tensor hidden = at::randn({200, 64}, Bf16()), weight = at::randn({vocabulary, 64}, Bf16()) * 0.2;
    at::Tensor target = at::randint(vocabulary, {200}, at::TensorOptions(at::kCUDA).dtype(at::kLong));
    nn::Weight head{weight, at::zeros({vocabulary, 64}, weight.options().dtype(at::kFloat))};
    at::Tensor a = hidden.clone().requires_grad_(true);
    at::Tensor b = hidden.to(at::kDouble).requires_grad_(true), w = weight.to(at::kDouble).requires_grad_(true);
    nn::TokenLogprobs out = nn::HeadLogprobs(a, head, target, 0.8, rule);
    at::Tensor logits = b.matmul((rule.normalised ? w / w.norm(2, {1}, true) : w).t()) * rule.multiplier;
    if (rule.softcap > 0) logits = at::tanh(logits / rule.softcap) * rule.softcap;
    at::Tensor log_p = at::log_softmax(logits / 0.8, 1);
    at::Tensor wanted = log_p.gather(1, target.unsqueeze(1)).squeeze(1);
    EXPECT_LE((out.logprob_N - wanted).abs().max().item<double>(), 0.1);
    at::Tensor sampled = nn::HeadLogits(hidden.narrow(0, 3, 50), head, rule).contiguous();
    EXPECT_LE(RelativeError(sampled, logits.detach().narrow(0, 3, 50)), 1e-2);
    EXPECT_TRUE(at::equal(nn::TokenLogprobsOfLogits(sampled, target.narrow(0, 3, 50).contiguous(), 0.8).logprob_N,
                          out.logprob_N.detach().narrow(0, 3, 50)));
    at::Tensor dy = at::randn({200}, at::TensorOptions(at::kCUDA)), entropy = -(log_p.exp() * log_p).sum(1);
    (out.logprob_N * dy + out.entropy_N * 0.3).sum().backward();
    (wanted * dy + entropy * 0.3).sum().backward();
    EXPECT_LE(RelativeError(a.grad(), b.grad()), 2e-2) << rule.multiplier << " " << rule.softcap;
    EXPECT_LE(RelativeError(head.grad, w.grad()), 2e-2) << rule.multiplier << " " << rule.softcap;
  }
}

// Rows of all temperatures, flat and peaked, some tokens banned, one row with a single token left.
TEST(DrawTokensGpuTest, DrawsTheLargestOfLogitAndNoise) {
  for (auto [vocabulary, stride] : {std::pair{151936, 151936}, {49152, 49152}, {8192, 8200}, {1003, 1008}, {1003, 1003}, {7, 7}}) {
    const int64_t rows = 64;
    at::Tensor logits = at::randn({rows, stride}, Bf16());
    logits.slice(0, 0, rows, 2).mul_(15);
    logits.slice(0, 0, rows, 3).masked_fill_(at::rand({(rows + 2) / 3, stride}, logits.options()) < 0.3, -INFINITY);
    logits[5].fill_(-INFINITY);
    logits[5][vocabulary - 1] = 0.5;
    std::vector<kernels::DrawRow> draws;
    std::vector<rollout::NoiseKey> noise(rows);
    std::vector<const rollout::NoiseKey*> keys;
    std::vector<float> temperature;
    for (uint32_t i = 0; i < rows; ++i) {
      const float t = std::array{0.0f, 1.0f, 0.3f, 1.7f}[i / 6 % 4];
      noise[i] = {random::DeriveKey(static_cast<uint64_t>(vocabulary), i), 7 * i};
      keys.push_back(t > 0 ? &noise[i] : nullptr);
      draws.push_back({noise[i].key, noise[i].position, t});
      temperature.push_back(t > 0 ? t : 1);
    }
    at::Tensor draw_N = at::from_blob(draws.data(), {rows * static_cast<int64_t>(sizeof(draws[0]))}, at::kByte).to(at::kCUDA);
    at::Tensor token = at::empty({rows}, Bf16().dtype(at::kLong)), logprob = at::empty({rows}, Bf16().dtype(at::kFloat)),
               untempered = at::empty_like(logprob);
    at::Tensor scratch = at::empty({kernels::LogitScratchBytes(rows, vocabulary)}, Bf16().dtype(at::kByte));
    kernels::TokenDraw run{logits.const_data_ptr(), stride, static_cast<const kernels::DrawRow*>(draw_N.const_data_ptr()),
                           token.mutable_data_ptr<int64_t>(), logprob.mutable_data_ptr<float>(),
                           untempered.mutable_data_ptr<float>(), scratch.mutable_data_ptr(), rows, vocabulary};
    absl::Status status = kernels::DrawTokens(run, tensor::CurrentStream());
    ASSERT_TRUE(status.ok()) << status;
    at::Tensor plain = logits.narrow(1, 0, vocabulary).to(at::kDouble);
    at::Tensor z = plain / at::tensor(temperature).to(at::kCUDA).to(at::kDouble).unsqueeze(1);
    at::Tensor score = z + rollout::GumbelNoise(keys, vocabulary, at::kCUDA).to(at::kDouble);
    auto at_token = [&](const at::Tensor& x) { return x.gather(1, token.unsqueeze(1)).squeeze(1); };
    at::Tensor behind = std::get<0>(score.max(1)) - at_token(score);
    EXPECT_LE(behind.max().item<double>(), 2e-5) << vocabulary;
    EXPECT_GE((score.argmax(1) == token).sum().item<int64_t>(), rows - 1) << vocabulary;
    EXPECT_EQ(token[5].item<int64_t>(), vocabulary - 1);
    EXPECT_LE((logprob - at_token(at::log_softmax(z, 1))).abs().max().item<double>(), 2e-4) << vocabulary;
    EXPECT_LE((untempered - at_token(at::log_softmax(plain, 1))).abs().max().item<double>(), 2e-4) << vocabulary;
  }
}

// Many equal logits, so that borders fall among ties; some tokens banned; against the reference that sorts.
TEST(FilterLogitsGpuTest, KeepsWhatTheReferenceKeeps) {
  for (int64_t vocabulary : {151936, 49152, 1003, 7}) {
    std::vector<rollout::RowDraw> rows;
    std::vector<kernels::FilterRow> filters;
    for (uint32_t top_k : {0u, 1u, 5u, 50u, 5000u}) {
      for (double top_p : {1.0, 0.95, 0.5, 0.01}) {
        for (double min_p : {0.0, 0.05}) {
          const double temperature = std::array{1.0, 0.6, 1.5}[rows.size() % 3];
          rows.push_back({.temperature = temperature, .top_k = top_k, .top_p = top_p, .min_p = min_p});
          filters.push_back({top_p, min_p, static_cast<float>(temperature), top_k});
        }
      }
    }
    const auto count = static_cast<int64_t>(rows.size());
    at::Tensor logits = at::randn({count, vocabulary}, Bf16());
    logits.slice(0, 0, count, 3).mul_(4);
    logits.slice(0, 1, count, 3).copy_((logits.slice(0, 1, count, 3) * 2).round());
    logits.slice(0, 0, count, 5).masked_fill_(at::rand({(count + 4) / 5, vocabulary}, logits.options()) < 0.3, -INFINITY);
    at::Tensor wanted = rollout::Filtered(logits, rows).cpu(), before = logits.cpu();
    at::Tensor filter_N =
        at::from_blob(filters.data(), {count * static_cast<int64_t>(sizeof(filters[0]))}, at::kByte).to(at::kCUDA);
    kernels::LogitFilter run{logits.mutable_data_ptr(), vocabulary,
                             static_cast<const kernels::FilterRow*>(filter_N.const_data_ptr()), count, vocabulary};
    absl::Status status = kernels::FilterLogits(run, tensor::CurrentStream());
    ASSERT_TRUE(status.ok()) << status;
    at::Tensor kept = logits.cpu();
    for (int64_t i = 0; i < count; ++i) {
      // Which of equal tokens stay is the kernel's own business: the first ones, by its header. At the border of top_p
      // the reference, whose mass is fp32, may round to the other side.
      const int64_t keeps = (kept[i] > -INFINITY).sum().item<int64_t>(), wants = (wanted[i] > -INFINITY).sum().item<int64_t>();
      EXPECT_LE(std::abs(keeps - wants), rows[i].top_p < 1 ? 1 : 0)
          << vocabulary << ", row " << i << ": keeps " << keeps << ", wanted " << wants << "; top_k " << rows[i].top_k
          << ", top_p " << rows[i].top_p << ", min_p " << rows[i].min_p;
      const int64_t common = std::min(keeps, wants);
      auto largest = [&](const at::Tensor& x) { return std::get<0>(x.sort(0, /*descending=*/true)).narrow(0, 0, common); };
      EXPECT_TRUE(at::equal(largest(kept[i]), largest(wanted[i]))) << vocabulary << ", row " << i;
      at::Tensor dropped_V = (kept[i] == -INFINITY).logical_and(before[i] > -INFINITY);
      at::Tensor least = at::where(kept[i] == -INFINITY, INFINITY, kept[i]).min();
      at::Tensor first_dropped = at::nonzero(dropped_V.logical_and(before[i] == least)).view(-1);
      at::Tensor last_kept = at::nonzero(kept[i] == least).view(-1);
      if (first_dropped.numel() == 0) continue;
      EXPECT_LT(last_kept.max().item<int64_t>(), first_dropped.min().item<int64_t>()) << i;
    }
  }
}

TEST(DrawTokensGpuTest, PlacesWhatTheStepBeforeDrew) {
  at::Tensor token = at::tensor({5, -1, 0, -3, -1}, at::kLong).to(at::kCUDA), drawn = at::tensor({70, 71, 72}, at::kLong).to(at::kCUDA);
  ASSERT_TRUE(kernels::PlaceDrawnTokens(token.mutable_data_ptr<int64_t>(), 5, drawn.const_data_ptr<int64_t>(),
                                        tensor::CurrentStream())
                  .ok());
  EXPECT_TRUE(at::equal(token.cpu(), at::tensor({5, 70, 0, 72, 70}, at::kLong)));
}

// Runs `ours` in bf16 and the same function in fp64 on equal values, forward and backward.
template <typename F>
void ExpectSame(const std::vector<at::Tensor>& inputs, F function, double tolerance) {
  std::vector<at::Tensor> narrow, wide;
  for (const at::Tensor& x : inputs) {
    narrow.push_back(x.clone().requires_grad_(true));
    wide.push_back(x.to(at::kDouble).requires_grad_(true));
  }
  at::Tensor y = function(narrow, false), wanted = function(wide, true);
  EXPECT_LE(RelativeError(y.detach(), wanted.detach()), tolerance);
  at::Tensor dy = at::randn_like(y);
  y.backward(dy);
  wanted.backward(dy.to(at::kDouble));
  for (size_t i = 0; i < inputs.size(); ++i) {
    EXPECT_LE(RelativeError(narrow[i].grad(), wide[i].grad()), tolerance) << i;
  }
}

nn::Weight RandomWeight(std::vector<int64_t> shape) {
  at::Tensor value = at::randn(shape, Bf16());
  return {value, at::zeros(shape, value.options().dtype(at::kFloat))};
}

at::Tensor PlainNorm(const at::Tensor& x, const at::Tensor& weight) {
  return x * (x.square().mean(-1, true) + 1e-5).rsqrt() * weight;
}

TEST(NormGpuTest, SumsAndNormsLikeTheFormula) {
  for (auto [rows, columns] : {std::pair{1, 64}, {3, 576}, {700, 1024}, {2, 8192}, {5, 40}}) {
    nn::Weight weight = RandomWeight({columns});
    at::Tensor wide = weight.value.to(at::kDouble).requires_grad_(true);
    ExpectSame({at::randn({rows, columns}, Bf16()), at::randn({rows, columns}, Bf16())},
               [&](const std::vector<at::Tensor>& in, bool plain) {
                 if (plain) {
                   at::Tensor sum = in[0] + in[1];
                   return sum * 0.25 + PlainNorm(sum, wide);
                 }
                 nn::SumAndNorm out = nn::AddNorm(in[0], in[1], nn::NormKind::kRms, {weight, {}}, 1e-5);
                 return out.sum * 0.25 + out.norm;
               },
               1.5e-2);
    EXPECT_LE(RelativeError(weight.grad, wide.grad()), 1.5e-2);
  }
}

// Weights that are 1 + w, and LayerNorm with and without weights, with and without something to add.
TEST(NormGpuTest, EveryKindIsLikeTheFormula) {
  auto formula = [](const at::Tensor& x, nn::NormKind kind, const at::Tensor& weight, const at::Tensor& bias) {
    if (kind == nn::NormKind::kLayer) return at::layer_norm(x, {x.size(1)}, weight, bias, 1e-5);
    return PlainNorm(x, weight + 1);
  };
  for (nn::NormKind kind : {nn::NormKind::kRmsPlusOne, nn::NormKind::kLayer}) {
    for (auto [rows, columns] : {std::pair{1, 64}, {3, 576}, {1300, 1024}, {2, 8192}, {5, 40}}) {
      for (bool weighted : {true, false}) {
        if (!weighted && kind != nn::NormKind::kLayer) continue;
        nn::NormWeights weights;
        at::Tensor wide, wide_bias;
        if (weighted) {
          weights.weight = RandomWeight({columns});
          wide = weights.weight.value.to(at::kDouble).requires_grad_(true);
        }
        if (weighted && kind == nn::NormKind::kLayer) {
          weights.bias = RandomWeight({columns});
          wide_bias = weights.bias.value.to(at::kDouble).requires_grad_(true);
        }
        ExpectSame({at::randn({rows, columns}, Bf16()) + 0.5, at::randn({rows, columns}, Bf16())},
                   [&](const std::vector<at::Tensor>& in, bool plain) {
                     if (plain) {
                       at::Tensor sum = in[0] + in[1];
                       return sum * 0.25 + formula(sum, kind, wide, wide_bias) + formula(in[0], kind, wide, wide_bias);
                     }
                     nn::SumAndNorm out = nn::AddNorm(in[0], in[1], kind, weights, 1e-5);
                     return out.sum * 0.25 + out.norm + nn::Norm(in[0], kind, weights, 1e-5);
                   },
                   2e-2);
        if (wide.defined()) {
          EXPECT_LE(RelativeError(weights.weight.grad, wide.grad()), 2e-2) << columns;
        }
        if (wide_bias.defined()) {
          EXPECT_LE(RelativeError(weights.bias.grad, wide_bias.grad()), 2e-2) << columns;
        }
        // A row alone.
        at::Tensor x = at::randn({rows, columns}, Bf16());
        EXPECT_TRUE(at::equal(nn::Norm(x.narrow(0, rows - 1, 1), kind, weights, 1e-5),
                              nn::Norm(x, kind, weights, 1e-5).narrow(0, rows - 1, 1)));
      }
    }
  }
}

TEST(GateGpuTest, EveryGateIsLikeTheFormula) {
  const nn::Gate gates[] = {{}, {nn::Activation::kGelu}, {nn::Activation::kGeluTanh}, {nn::Activation::kRelu},
                            {nn::Activation::kSilu, 1.5, 1.7}};
  for (const nn::Gate& gate : gates) {
    for (auto [rows, width] : {std::pair{1, 8}, {513, 1536}, {7, 40}}) {
      ExpectSame({at::randn({rows, 2 * width}, Bf16())},
                 [&, width = width](const std::vector<at::Tensor>& in, bool plain) {
                   if (!plain) return nn::Gated(in[0], gate);
                   at::Tensor g = in[0].narrow(1, 0, width), up = in[0].narrow(1, width, width);
                   if (gate.limit == 0) return nn::Activate(g, gate.activation) * up;
                   g = g.clamp_max(gate.limit);
                   return (up.clamp(-gate.limit, gate.limit) + 1) * (g * at::sigmoid(g * gate.slope));
                 },
                 1.5e-2);
    }
  }
}

TEST(QueryKeyValueGpuTest, NormsAndTurnsLikeTheFormula) {
  for (int64_t dim : {32, 64, 96, 128, 256}) {
    for (bool normed : {true, false}) {
      const int64_t tokens = 37, heads = 6, kv_heads = 2;
      const nn::HeadShape shape{heads, kv_heads, dim};
      at::Tensor angle = at::rand({tokens, dim / 2}, at::TensorOptions(at::kCUDA)) * 6;
      const nn::Rotary rotary{angle.cos(), angle.sin()};
      nn::SequenceView view = nn::PackedSequences({tokens}, at::kCUDA);
      nn::Weight q_norm = normed ? RandomWeight({dim}) : nn::Weight(),
                 k_norm = normed ? RandomWeight({dim}) : nn::Weight();
      at::Tensor q_wide, k_wide;
      if (normed) {
        q_wide = q_norm.value.to(at::kDouble).requires_grad_(true);
        k_wide = k_norm.value.to(at::kDouble).requires_grad_(true);
      }
      auto turn = [&](const at::Tensor& x, const at::Tensor& weight) {
        at::Tensor y = normed ? PlainNorm(x, weight) : x;
        at::Tensor first = y.narrow(2, 0, dim / 2), second = y.narrow(2, dim / 2, dim / 2);
        at::Tensor c = rotary.cos.unsqueeze(1), s = rotary.sin.unsqueeze(1);
        return at::cat({first * c - second * s, second * c + first * s}, 2);
      };
      ExpectSame({at::randn({tokens, (heads + 2 * kv_heads) * dim}, Bf16())},
                 [&](const std::vector<at::Tensor>& in, bool plain) {
                   if (plain) {
                     at::Tensor x = in[0].view({tokens, -1, dim});
                     return at::cat({turn(x.narrow(1, 0, heads), q_wide),
                                     turn(x.narrow(1, heads, kv_heads), k_wide),
                                     x.narrow(1, heads + kv_heads, kv_heads)},
                                    1);
                   }
                   nn::QueryKeyValue out =
                       nn::SplitQueryKeyValue(in[0], shape, q_norm, k_norm, 1e-5, rotary, view, 0);
                   return at::cat({out.q_THC, out.k_TKC, out.v_TKC}, 1);
                 },
                 1.5e-2);
      if (!normed) continue;
      EXPECT_LE(RelativeError(q_norm.grad, q_wide.grad()), 1.5e-2);
      EXPECT_LE(RelativeError(k_norm.grad, k_wide.grad()), 1.5e-2);
    }
  }
}

// Part of a head turned, neighbours as pairs, nothing turned, norms of 1 + w and over all heads; and pages get the bits of
// a packed pass.
TEST(QueryKeyValueGpuTest, EveryTurnAndNormIsLikeTheFormula) {
  const int64_t tokens = 41, heads = 6, kv_heads = 2;
  enum class Norms { kNone, kHead, kPlusOne, kWhole };
  for (int64_t dim : {12, 32, 80, 96, 128, 256}) {
    for (int64_t rotated : {int64_t{0}, dim / 4 * 2, dim}) {
      for (bool interleaved : {false, true}) {
        for (Norms norms : {Norms::kNone, Norms::kHead, Norms::kPlusOne, Norms::kWhole}) {
          const bool whole = norms == Norms::kWhole;
          nn::HeadShape shape{heads, kv_heads, dim};
          if (norms == Norms::kPlusOne) shape.norm = nn::NormKind::kRmsPlusOne;
          shape.norm_over_all = whole;
          nn::Rotary rotary;
          if (rotated > 0) {
            at::Tensor angle = at::rand({tokens, rotated / 2}, at::TensorOptions(at::kCUDA)) * 6;
            rotary = {angle.cos(), angle.sin(), interleaved};
          }
          nn::SequenceView view = nn::PackedSequences({tokens}, at::kCUDA);
          nn::Weight q_norm, k_norm;
          at::Tensor q_wide, k_wide;
          if (norms != Norms::kNone) {
            q_norm = RandomWeight({whole ? heads * dim : dim});
            k_norm = RandomWeight({whole ? kv_heads * dim : dim});
            q_wide = q_norm.value.to(at::kDouble).requires_grad_(true);
            k_wide = k_norm.value.to(at::kDouble).requires_grad_(true);
          }
          auto turned = [&](const at::Tensor& x, const at::Tensor& weight) {
            at::Tensor y = x;
            if (norms == Norms::kHead) y = PlainNorm(x, weight);
            if (norms == Norms::kPlusOne) y = PlainNorm(x, weight + 1);
            if (whole) y = PlainNorm(x.flatten(1), weight).view(x.sizes());
            if (rotated == 0) return y;
            at::Tensor c = rotary.cos.unsqueeze(1), s = rotary.sin.unsqueeze(1), rest = y.narrow(2, rotated, dim - rotated);
            if (interleaved) {
              at::Tensor pairs = y.narrow(2, 0, rotated).unflatten(2, {-1, 2});
              at::Tensor first = pairs.select(3, 0), second = pairs.select(3, 1);
              return at::cat({at::stack({first * c - second * s, second * c + first * s}, 3).flatten(2), rest}, 2);
            }
            at::Tensor first = y.narrow(2, 0, rotated / 2), second = y.narrow(2, rotated / 2, rotated / 2);
            return at::cat({first * c - second * s, second * c + first * s, rest}, 2);
          };
          at::Tensor in_TE = at::randn({tokens, (heads + 2 * kv_heads) * dim}, Bf16());
          ExpectSame({in_TE},
                     [&](const std::vector<at::Tensor>& in, bool plain) {
                       if (plain) {
                         at::Tensor x = in[0].view({tokens, -1, dim});
                         return at::cat({turned(x.narrow(1, 0, heads), q_wide), turned(x.narrow(1, heads, kv_heads), k_wide),
                                         x.narrow(1, heads + kv_heads, kv_heads)},
                                        1);
                       }
                       nn::QueryKeyValue out = nn::SplitQueryKeyValue(in[0], shape, q_norm, k_norm, 1e-5, rotary, view, 0);
                       return at::cat({out.q_THC, out.k_TKC, out.v_TKC}, 1);
                     },
                     1.5e-2);
          if (norms != Norms::kNone) {
            EXPECT_LE(RelativeError(q_norm.grad, q_wide.grad()), 1.5e-2) << dim << " " << rotated << " " << whole;
            EXPECT_LE(RelativeError(k_norm.grad, k_wide.grad()), 1.5e-2) << dim << " " << rotated << " " << whole;
          }
          nn::QueryKeyValue packed = nn::SplitQueryKeyValue(in_TE, shape, q_norm, k_norm, 1e-5, rotary, view, 0);
          std::vector<nn::KvPages> layers(1);
          layers[0].key = at::zeros({4, 16, kv_heads, dim}, Bf16());
          layers[0].value = at::zeros({4, 16, kv_heads, dim}, Bf16());
          nn::PageMap map{.layers = &layers, .page_tokens = 16};
          map.slot_T = at::randperm(64, at::TensorOptions(at::kLong)).narrow(0, 0, tokens).to(at::kCUDA);
          view.pages = &map;
          nn::QueryKeyValue paged = nn::SplitQueryKeyValue(in_TE, shape, q_norm, k_norm, 1e-5, rotary, view, 0);
          EXPECT_TRUE(at::equal(paged.q_THC, packed.q_THC)) << dim;
          ASSERT_FALSE(paged.k_TKC.defined());
          EXPECT_TRUE(at::equal(layers[0].key.flatten(0, 1).index_select(0, map.slot_T), packed.k_TKC)) << dim;
          EXPECT_TRUE(at::equal(layers[0].value.flatten(0, 1).index_select(0, map.slot_T), packed.v_TKC)) << dim;
        }
      }
    }
  }
}

// A projection to one number, as the gate of a shared expert is.
TEST(ProjectionGpuTest, ASingleColumnKeepsItsBits) {
  for (int64_t inner : {64, 2048, 40}) {
    nn::Weight weight = RandomWeight({1, inner});
    at::Tensor wide = weight.value.to(at::kDouble).requires_grad_(true);
    ExpectSame({at::randn({300, inner}, Bf16())},
               [&](const std::vector<at::Tensor>& in, bool plain) {
                 return plain ? at::linear(in[0], wide) : nn::Projection(in[0], weight, {});
               },
               1.5e-2);
    EXPECT_LE(RelativeError(weight.grad, wide.grad()), 1.5e-2);
    at::Tensor x = at::randn({300, inner}, Bf16()), all = nn::Projection(x, weight, {});
    for (int64_t row : {0, 7, 299}) {
      EXPECT_TRUE(at::equal(nn::Projection(x.narrow(0, row, 1), weight, {}), all.narrow(0, row, 1)));
    }
  }
}

at::Tensor Project(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, bool plain) {
  at::Tensor y = at::empty({x.size(0), weight.size(0)}, x.options());
  kernels::Projection run;
  run.x = x.const_data_ptr();
  run.weight = weight.const_data_ptr();
  if (bias.defined()) run.bias = bias.const_data_ptr();
  run.y = y.mutable_data_ptr();
  run.rows = x.size(0);
  run.columns = weight.size(0);
  run.inner = weight.size(1);
  absl::Status status = plain ? kernels::RunPlainProjection(run, tensor::CurrentStream())
                              : kernels::RunProjection(run, tensor::CurrentStream());
  EXPECT_TRUE(status.ok()) << status;
  return y;
}

// The promise: a row has the same bits alone and among any number of others.
TEST(ProjectionGpuTest, ARowKeepsItsBitsWhateverTheNumberOfRows) {
  for (auto [columns, inner] : {std::pair{4096, 1024}, {1024, 3072}, {576, 1536}, {960, 576}, {49152, 576}, {896, 4864}, {24, 40}, {48, 16}, {16, 408}, {160, 144}, {2064, 24}}) {
    at::Tensor weight = at::randn({columns, inner}, Bf16()) * 0.05, x = at::randn({2500, inner}, Bf16());
    for (bool with_bias : {false, true}) {
      at::Tensor bias = with_bias ? at::randn({columns}, Bf16()) : at::Tensor();
      at::Tensor one_by_one = Project(x.narrow(0, 0, 64), weight, bias, /*plain=*/true);
      EXPECT_LE(RelativeError(one_by_one, at::linear(x.narrow(0, 0, 64).to(at::kDouble), weight.to(at::kDouble),
                                                     with_bias ? bias.to(at::kDouble) : bias)),
                1e-2);
      for (int64_t rows : {1, 2, 7, 16, 17, 33, 64, 100, 128, 200, 256, 500, 777, 1024, 2048, 2500}) {
        at::Tensor all = Project(x.narrow(0, 0, rows).contiguous(), weight, bias, /*plain=*/false);
        const int64_t common = std::min<int64_t>(rows, 64);
        EXPECT_TRUE(at::equal(all.narrow(0, 0, common), one_by_one.narrow(0, 0, common)))
            << columns << " x " << inner << ", " << rows << " rows";
        // Twice: the first call chooses, the second uses the choice; and the last row alone.
        EXPECT_TRUE(at::equal(Project(x.narrow(0, 0, rows).contiguous(), weight, bias, false), all));
        EXPECT_TRUE(at::equal(Project(x.narrow(0, rows - 1, 1).contiguous(), weight, bias, true), all.narrow(0, rows - 1, 1)));
      }
    }
  }
  for (const std::string& line : kernels::ChosenProjections()) std::printf("%s\n", line.c_str());
}

TEST(ProjectionGpuTest, EveryCutOfFewRowsHasTheBitsOfThePlainKernel) {
  int cuts = 0;
  for (auto [columns, inner] : {std::pair{1024, 3072}, {4096, 1024}, {960, 576}, {24, 64}, {72, 1088}, {2560, 448}}) {
    at::Tensor weight = at::randn({columns, inner}, Bf16()) * 0.05, all = at::randn({256, inner}, Bf16());
    at::Tensor bias = at::randn({columns}, Bf16());
    for (int64_t rows : {int64_t{1}, int64_t{16}, int64_t{64}, int64_t{256}, at::randint(2, 256, {1}).item<int64_t>()}) {
      at::Tensor x = all.narrow(0, 0, rows).contiguous(), wanted = Project(x, weight, bias, /*plain=*/true);
      at::Tensor y = at::empty_like(wanted);
      kernels::Projection run{x.const_data_ptr(), weight.const_data_ptr(), bias.const_data_ptr(), y.mutable_data_ptr(), rows, columns, inner};
      for (const kernels::FewRowsCut& cut : kernels::FewRowsCuts(run)) {
        ++cuts;
        y.fill_(std::nan(""));
        absl::Status status = kernels::RunFewRowsProjection(run, cut, tensor::CurrentStream());
        ASSERT_TRUE(status.ok()) << status;
        EXPECT_TRUE(at::equal(y, wanted)) << rows << " x " << columns << " x " << inner << " in blocks of " << cut.rows << " x " << cut.columns;
      }
    }
  }
  if (cuts == 0) GTEST_SKIP() << "this GPU is no Hopper";
}

TEST(ProjectionGpuTest, WithoutThePromiseItIsStillTheProduct) {
  kernels::KeepBits(false);
  for (auto [columns, inner] : {std::pair{1024, 3072}, {576, 1536}, {24, 40}}) {
    at::Tensor weight = at::randn({columns, inner}, Bf16()) * 0.05, x = at::randn({300, inner}, Bf16());
    at::Tensor wide = at::linear(x.to(at::kDouble), weight.to(at::kDouble));
    for (int64_t rows : {1, 16, 64, 300}) {
      for (int call = 0; call < 2; ++call) {  // chooses, uses the choice
        at::Tensor y = Project(x.narrow(0, 0, rows).contiguous(), weight, {}, /*plain=*/false);
        EXPECT_LE(RelativeError(y, wide.narrow(0, 0, rows)), 1e-2);
      }
    }
  }
  kernels::KeepBits(true);
}

TEST(AdamWGpuTest, MatchesItsReference) {
  std::vector<weights::ParameterSpec> specs;
  for (auto [name, size, decay] : {std::tuple{"a", 1000, true}, {"b", 4099, true}, {"c", 7, false}, {"d", 130'001, true}}) {
    specs.push_back({name, {size}, {-1, -1, -1}, decay, false});
  }
  auto registry = *weights::Registry::Create(specs);
  const int64_t size = registry.arena_elements();
  at::TensorOptions fp32 = at::TensorOptions(at::kCUDA).dtype(at::kFloat);
  trainer::OptimizerState fast{{0, size}, at::randn({size}, fp32), at::zeros({size}, fp32), at::zeros({size}, fp32), {}};
  trainer::OptimizerState slow{{0, size}, fast.master.clone(), at::zeros({size}, fp32), at::zeros({size}, fp32), {}};
  fast.rounded = at::zeros({size}, fp32.dtype(at::kBFloat16));
  const trainer::AdamWSettings settings{.weight_decay = 0.05};
  for (int step = 1; step <= 4; ++step) {
    at::Tensor grad = at::randn({size}, fp32);
    trainer::AdamWStep(registry, settings, 1e-2, 0.5, step, grad, fast);
    trainer::AdamWStepReference(registry, settings, 1e-2, 0.5, step, grad, slow);
    EXPECT_NEAR(trainer::SquaredNorm(grad), grad.to(at::kDouble).square().sum().item<double>(), 1e-6 * size);
  }
  for (const weights::Parameter& p : registry.parameters()) {
    auto cut = [&](const at::Tensor& x) { return x.narrow(0, p.offset, p.elements); };
    EXPECT_LE((cut(fast.master) - cut(slow.master)).abs().max().item<float>(), 2e-6) << p.spec.name;
    EXPECT_LE((cut(fast.moment2) - cut(slow.moment2)).abs().max().item<float>(), 1e-6) << p.spec.name;
    EXPECT_TRUE(at::equal(cut(fast.rounded), cut(fast.master).to(at::kBFloat16))) << p.spec.name;
  }
}

// bf16 moments as the host rounds them; and state in pinned host memory gives the bits of state on the device.
TEST(AdamWGpuTest, StateInHostMemoryGivesTheSameBits) {
  std::vector<weights::ParameterSpec> specs;
  for (auto [name, size, decay] :
       {std::tuple{"a", 40'000'000, true}, {"b", 4099, false}, {"c", 7, true}, {"d", 1'300'001, true}}) {
    specs.push_back({name, {size}, {-1, -1, -1}, decay, false});
  }
  auto registry = *weights::Registry::Create(specs);
  const int64_t size = registry.arena_elements();  // several pieces of kStagingBytes
  at::TensorOptions fp32 = at::TensorOptions(at::kCUDA).dtype(at::kFloat);
  for (at::ScalarType moments : {at::kFloat, at::kBFloat16}) {
    trainer::OptimizerState there{{0, size}, at::randn({size}, fp32), at::zeros({size}, fp32.dtype(moments)),
                                  at::zeros({size}, fp32.dtype(moments)), at::zeros({size}, fp32.dtype(at::kBFloat16))};
    trainer::OptimizerState host{{0, size}, {}, {}, {}, at::zeros({size}, fp32.dtype(at::kBFloat16))};
    std::vector<void*> pinned;
    for (auto [from, to] : {std::pair{&there.master, &host.master}, {&there.moment1, &host.moment1}, {&there.moment2, &host.moment2}}) {
      pinned.push_back(kernels::AllocatePinned(static_cast<int64_t>(from->nbytes())));
      ASSERT_NE(pinned.back(), nullptr);
      *to = at::from_blob(pinned.back(), {size}, at::TensorOptions(from->scalar_type()));
      to->copy_(*from);
    }
    const trainer::AdamWSettings settings{.weight_decay = 0.05, .seed = 9};
    for (int step = 1; step <= 3; ++step) {
      at::Tensor grad = at::randn({size}, fp32);
      trainer::AdamWStep(registry, settings, 1e-2, 0.5, step, grad, there);
      trainer::AdamWStep(registry, settings, 1e-2, 0.5, step, grad, host);
    }
    EXPECT_TRUE(at::equal(there.master.cpu(), host.master));
    EXPECT_TRUE(at::equal(there.moment1.cpu(), host.moment1));
    EXPECT_TRUE(at::equal(there.moment2.cpu(), host.moment2));
    EXPECT_TRUE(at::equal(there.rounded, host.rounded));
    for (void* memory : pinned) kernels::FreePinned(memory);
  }
}

TEST(AdamWGpuTest, NarrowMomentsAreRoundedAsOnTheHost) {
  auto registry = *weights::Registry::Create({{"w", {100'003}, {-1, -1, -1}, true, false}});
  const int64_t size = registry.arena_elements();
  at::TensorOptions fp32 = at::TensorOptions(at::kCUDA).dtype(at::kFloat);
  trainer::OptimizerState gpu{{0, size}, at::randn({size}, fp32), at::zeros({size}, fp32.dtype(at::kBFloat16)),
                              at::zeros({size}, fp32.dtype(at::kBFloat16)), {}};
  trainer::OptimizerState cpu{{0, size}, gpu.master.cpu(), gpu.moment1.cpu(), gpu.moment2.cpu(), {}};
  for (int step = 1; step <= 3; ++step) {
    at::Tensor grad = at::randn({size}, fp32);
    trainer::AdamWStep(registry, {.seed = 2}, 1e-2, 0.5, step, grad, gpu);
    trainer::AdamWStep(registry, {.seed = 2}, 1e-2, 0.5, step, grad.cpu(), cpu);
  }
  EXPECT_LE((gpu.master.cpu() - cpu.master).abs().max().item<float>(), 1e-3);
  // An ulp of fp32 in between rounds the other way now and then.
  EXPECT_LE((gpu.moment1.cpu() != cpu.moment1).to(at::kFloat).mean().item<float>(), 1e-3);
  EXPECT_LE((gpu.moment2.cpu() != cpu.moment2).to(at::kFloat).mean().item<float>(), 1e-3);
}

}  // namespace
}  // namespace rein::gpu

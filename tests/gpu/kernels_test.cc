// Each kernel, and each LibTorch operation that only a GPU has, against its plain reference on fresh
// random input.

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "common/kernels/digest.h"
#include "common/kernels/projection.h"
#include "common/nn/functions.h"
#include "common/nn/head.h"
#include "common/nn/query_key_value.h"
#include "common/tensor/cuda_runtime.h"
#include "common/weights/digest.h"
#include "common/weights/registry.h"
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

TEST(HeadGpuTest, MatchesLogSoftmaxInDouble) {
  at::Tensor hidden = at::randn({300, 64}, Bf16()), weight = at::randn({49152, 64}, Bf16()) * 0.2;
  at::Tensor target = at::randint(49152, {300}, at::TensorOptions(at::kCUDA).dtype(at::kLong));
  nn::Weight head{weight, at::zeros({49152, 64}, weight.options().dtype(at::kFloat))};
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
                 nn::SumAndNorm out = nn::AddRmsNorm(in[0], in[1], weight, 1e-5);
                 return out.sum * 0.25 + out.norm;
               },
               1.5e-2);
    EXPECT_LE(RelativeError(weight.grad, wide.grad()), 1.5e-2);
  }
}

TEST(GatedSiluGpuTest, MatchesTheFormula) {
  for (auto [rows, width] : {std::pair{1, 8}, {513, 1536}, {7, 40}}) {
    ExpectSame({at::randn({rows, 2 * width}, Bf16())},
               [width = width](const std::vector<at::Tensor>& in, bool plain) {
                 if (!plain) return nn::GatedSilu(in[0]);
                 return at::silu(in[0].narrow(1, 0, width)) * in[0].narrow(1, width, width);
               },
               1.5e-2);
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

TEST(ProjectionGpuTest, FewRowsHaveThePlainKernelsBits) {
  for (auto [columns, inner] : {std::pair{1024, 3072}, {4096, 1024}, {576, 1536}, {896, 4864}, {48, 16}, {16, 408}, {160, 144}, {2064, 24}}) {
    at::Tensor weight = at::randn({columns, inner}, Bf16()), bias = at::randn({columns}, Bf16());
    for (int64_t rows : {1, 2, 15, 16, 17, 31, 33, 50, 64}) {
      at::Tensor x = at::randn({rows, inner}, Bf16());
      for (const at::Tensor& b : {at::Tensor(), bias}) {
        at::Tensor y = at::full({rows, columns}, NAN, Bf16());
        kernels::Projection run{x.const_data_ptr(), weight.const_data_ptr(), b.defined() ? b.const_data_ptr() : nullptr,
                                y.mutable_data_ptr(), rows, columns, inner};
        if (!kernels::FewRowsProjectionTakes(run)) GTEST_SKIP() << "this GPU is not one of Hopper";
        absl::Status status = kernels::RunFewRowsProjection(run, tensor::CurrentStream());
        ASSERT_TRUE(status.ok()) << status;
        EXPECT_TRUE(at::equal(y, Project(x, weight, b, /*plain=*/true))) << rows << " rows, " << columns << " x " << inner;
      }
    }
  }
}

// The promise: a row has the same bits alone and among any number of others.
TEST(ProjectionGpuTest, ARowKeepsItsBitsWhateverTheNumberOfRows) {
  for (auto [columns, inner] : {std::pair{4096, 1024}, {1024, 3072}, {576, 1536}, {960, 576}, {49152, 576}, {896, 4864}, {24, 40}}) {
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

}  // namespace
}  // namespace rein::gpu

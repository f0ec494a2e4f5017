// rein-gpu-bench kernels

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <cstdio>
#include <functional>

#include "common/kernels/filter_logits.h"
#include "common/kernels/logits.h"
#include "common/kernels/projection.h"
#include "common/nn/activation.h"
#include "common/nn/attention.h"
#include "common/nn/experts.h"
#include "common/nn/fp8.h"
#include "common/nn/functions.h"
#include "common/nn/head.h"
#include "common/nn/latent_decode.h"
#include "common/nn/norm.h"
#include "common/nn/query_key_value.h"
#include "common/tensor/cuda_graph.h"
#include "common/tensor/cuda_runtime.h"
#include "tests/bench/gpu_bench.h"

namespace rein::gpu {
namespace {

using nlohmann::json;
using std::chrono::steady_clock;

// On the GPU alone: many runs as one captured graph.
double CapturedMicroseconds(const std::function<void()>& body) {
  constexpr int kRuns = 40, kReplays = 5;
  body();
  auto graph = tensor::CaptureGraph(tensor::NewGraphPool(), [&] {
    for (int i = 0; i < kRuns; ++i) body();
  });
  if (!graph.ok()) Die(std::string(graph.status().message()));
  (*graph)->Replay();
  Wait();
  const auto begin = steady_clock::now();
  for (int i = 0; i < kReplays; ++i) (*graph)->Replay();
  Wait();
  return 1e6 * Seconds(begin) / (kRuns * kReplays);
}

double Microseconds(const std::function<void()>& body) {
  for (int i = 0; i < 3; ++i) body();
  Wait();
  constexpr int kRuns = 20;
  const auto begin = steady_clock::now();
  for (int i = 0; i < kRuns; ++i) body();
  Wait();
  return 1e6 * Seconds(begin) / kRuns;
}

void Line(const std::string& kernel, const std::string& shape, double us, double bytes, double flop) {
  json line = {{"bench", "kernel"}, {"kernel", kernel}, {"shape", shape}, {"microseconds", us}};
  if (bytes > 0) line["gb_per_second"] = bytes / us * 1e-3;
  if (flop > 0) line["tflop_per_second"] = flop / us * 1e-6;
  std::printf("%s\n", line.dump().c_str());
  std::fflush(stdout);
}

}  // namespace

void Kernels() {
  at::TensorOptions bf16 = at::TensorOptions(at::kCUDA).dtype(at::kBFloat16);
  auto weight = [&](std::vector<int64_t> shape) {
    at::Tensor value = at::randn(shape, bf16);
    return nn::Weight{value, at::zeros(shape, bf16.dtype(at::kFloat))};
  };
  constexpr int64_t kTokens = 16384;
  // Backward time is that of forward and backward less forward.
  auto both = [&](const std::string& kernel, const std::string& shape, std::vector<at::Tensor> in, double forward_bytes,
                  double backward_bytes, double forward_flop, double backward_flop, auto function) {
    double forward = 0;
    {
      at::NoGradGuard no_grad;
      forward = Microseconds([&] { function(in); });
    }
    Line(kernel + " forward", shape, forward, forward_bytes, forward_flop);
    for (at::Tensor& x : in) x.requires_grad_(true);
    at::Tensor dy = at::randn_like(function(in));
    Wait();
    const auto begin = steady_clock::now();
    function(in).backward(dy);
    Wait();
    Line(kernel + " forward and backward, first call", shape, 1e6 * Seconds(begin), 0, 0);
    const double all = Microseconds([&] {
      function(in).backward(dy);
      for (at::Tensor& x : in) x.mutable_grad() = at::Tensor();
    });
    Line(kernel + " backward", shape, all - forward, backward_bytes, backward_flop);
  };
  for (int64_t width : {1024, 4096}) {
    nn::Weight w = weight({width});
    const double row = 2.0 * kTokens * static_cast<double>(width);
    both("AddRmsNorm", "16384 x " + std::to_string(width), {at::randn({kTokens, width}, bf16), at::randn({kTokens, width}, bf16)},
         4 * row, 4 * row, 0, 0, [&](const std::vector<at::Tensor>& x) {
           nn::SumAndNorm out = nn::AddNorm(x[0], x[1], nn::NormKind::kRms, {w, {}}, 1e-6);
           return at::GradMode::is_enabled() ? out.sum + out.norm : out.norm;
         });
  }
  both("GatedSilu", "16384 x 2*3072", {at::randn({kTokens, 6144}, bf16)}, 2.0 * kTokens * 9216, 2.0 * kTokens * 15360, 0, 0,
       [](const std::vector<at::Tensor>& x) { return nn::Gated(x[0], {}); });
  for (int64_t length : {512, 1024, 4096, 16384}) {
    nn::SequenceView view = nn::PackedSequences(std::vector<int64_t>(kTokens / length, length), at::kCUDA);
    const double flop = 2.0 * static_cast<double>(kTokens * length) * 16 * 128;
    both("Attention", "16/8 heads of 128, 16384 tokens, length " + std::to_string(length),
         {at::randn({kTokens, 16, 128}, bf16), at::randn({kTokens, 8, 128}, bf16), at::randn({kTokens, 8, 128}, bf16)}, 0, 0,
         flop, 2.5 * flop, [&](const std::vector<at::Tensor>& x) { return nn::Attention(x[0], x[1], x[2], view, 0, 0.088); });
  }
  {  // a layer of Qwen3-30B-A3B
    nn::ExpertWeights w;
    w.router_ED = weight({128, 2048});
    w.gate_up = weight({128, 2 * 768, 2048});
    w.down = weight({128, 2048, 768});
    nn::RoutingRule rule;
    rule.experts = 128;
    rule.chosen = 8;
    for (int64_t tokens : {kTokens, int64_t{256}}) {
      const double flop = 2.0 * static_cast<double>(tokens) * 8 * 3 * 2048 * 768, bytes = tokens < kTokens ? 2.0 * 128 * 3 * 768 * 2048 : 0;
      both("MixtureOfExperts", std::to_string(tokens) + " tokens, 8 of 128 experts of 768, width 2048", {at::randn({tokens, 2048}, bf16)},
           bytes, 0, flop, 2 * flop, [&](const std::vector<at::Tensor>& x) { return nn::MixtureOfExperts(x[0], w, rule, {}); });
    }
  }
  // Decoding: B sequences of one length, pages in random order.
  at::NoGradGuard no_grad;
  for (auto [sequences, context, heads, kv_heads, prompt] :  // each 16 siblings have a prompt of so many tokens in common
       {std::tuple{256, 1024, 16, 8, 0}, {256, 3072, 16, 8, 0}, {64, 3072, 32, 8, 0}, {8, 4096, 16, 8, 0}, {1, 4096, 16, 8, 0},
        {256, 1024, 14, 2, 0}, {256, 1536, 16, 8, 1024}, {256, 1536, 32, 8, 1024}}) {
    const int64_t pages_of_one = (context + 15) / 16, dim = heads == 14 ? 64 : 128;
    std::vector<nn::KvPages> layers(1);
    layers[0].key = at::randn({sequences * pages_of_one, 16, kv_heads, dim}, bf16);
    layers[0].value = at::randn({sequences * pages_of_one, 16, kv_heads, dim}, bf16);
    nn::PageMap map{.layers = &layers, .page_tokens = 16, .single_queries = sequences,
                    .most_chunks = sequences * ((context + 255) / 256)};
    map.pages_BP = at::randperm(sequences * pages_of_one, bf16.dtype(at::kInt)).view({sequences, pages_of_one});
    if (prompt > 0) {
      at::Tensor groups = map.pages_BP.view({-1, 16, pages_of_one}).narrow(2, 0, prompt / 16);
      groups.copy_(groups.narrow(1, 0, 1).expand_as(groups).clone());
      map.shared_B = at::full({sequences / 16, 16}, prompt, bf16.dtype(at::kInt));
      map.shared_B.narrow(1, 0, 1).zero_();
    }
    nn::SequenceView view = nn::PackedSequences(std::vector<int64_t>(sequences, 1), at::kCUDA);
    view.context_B = at::full({sequences}, context, bf16.dtype(at::kInt));
    nn::PlanDecode(map, view.context_B, heads, dim);
    view.pages = &map;
    at::Tensor q = at::randn({sequences, heads, dim}, bf16);
    for (bool fp8 : {false, true}) {
      if (fp8) layers[0].key = nn::ToFp8(layers[0].key), layers[0].value = nn::ToFp8(layers[0].value);
      const double us = CapturedMicroseconds([&] { nn::Attention(q, {}, {}, view, 0, 0.088); });
      Line("Attention decode", std::to_string(sequences) + " x " + std::to_string(context) + ", " + std::to_string(heads) + "/" +
           std::to_string(kv_heads) + " heads of " + std::to_string(dim) + (fp8 ? ", fp8" : "") +
           (prompt > 0 ? ", 16 siblings with a prompt of " + std::to_string(prompt) : ""), us,
           (fp8 ? 2.0 : 4.0) * static_cast<double>(sequences) * (context - prompt * 15.0 / 16) * static_cast<double>(kv_heads * dim), 0);
    }
  }
  // The same of latent attention, DeepSeek's and Moonlight's.
  for (auto [sequences, context, heads] : {std::tuple{256, 1024, 16}, {64, 4096, 16}, {256, 4096, 16}, {256, 8192, 16}, {8, 4096, 16}, {1, 8192, 16},
                                           {256, 4096, 8}, {128, 2048, 32}, {64, 2048, 128}}) {
    const int64_t pages_of_one = context / 16, pages = sequences * pages_of_one;
    std::vector<nn::KvPages> layers(1);
    layers[0].key = at::randn({pages, 16, 1, 576}, bf16);
    layers[0].value = at::empty({pages, 16, 1, 0}, bf16);
    nn::PageMap map{.layers = &layers, .page_tokens = 16, .single_queries = sequences, .most_chunks = sequences * ((context + 255) / 256)};
    if (!nn::DecodesLatents(map, layers[0])) break;  // no Hopper
    map.pages_BP = at::randperm(pages, bf16.dtype(at::kInt)).view({sequences, pages_of_one});
    nn::SequenceView view = nn::PackedSequences(std::vector<int64_t>(sequences, 1), at::kCUDA);
    view.context_B = at::full({sequences}, context, bf16.dtype(at::kInt));
    nn::PlanDecode(map, view.context_B, heads, 64);
    view.pages = &map;
    at::Tensor q = at::randn({sequences, heads, 576}, bf16);
    Line("Latent decode", std::to_string(sequences) + " x " + std::to_string(context) + ", " + std::to_string(heads) + " heads",
         CapturedMicroseconds([&] { nn::DecodeLatents(q, view, 0, 0.1); }), 2.0 * 576 * static_cast<double>(sequences) * context, 0);
  }
  for (auto [columns, inner] : {std::pair{4096, 1024}, {1024, 2048}, {6144, 1024}, {1024, 3072}, {151936, 1024}, {24576, 4096}, {4096, 12288}}) {
    nn::Weight w = weight({columns, inner});
    for (int64_t rows : {1, 16, 64, 128, 256, 2048, 16384}) {
      if (columns > 100000 && rows > 4096) continue;
      at::Tensor x = at::randn({rows, inner}, bf16);
      const double flop = 2.0 * rows * columns * static_cast<double>(inner);
      const double bytes = 2.0 * (static_cast<double>(columns) * inner + rows * inner + rows * static_cast<double>(columns));
      const std::string shape = std::to_string(rows) + " rows, " + std::to_string(columns) + " x " + std::to_string(inner);
      Line("Projection", shape, CapturedMicroseconds([&] { nn::Projection(x, w, {}); }), bytes, flop);
      Line("at::linear", shape, CapturedMicroseconds([&] { at::linear(x, w.value); }), bytes, flop);
    }
  }
  // The small kernels of a decoding step, at the shape of Qwen3-0.6B.
  for (int64_t rows : {1, 128, 256}) {
    const std::string shape = std::to_string(rows) + " rows";
    nn::Weight norm = weight({1024}), head_norm = weight({128});
    at::Tensor x = at::randn({rows, 1024}, bf16), gate_up = at::randn({rows, 6144}, bf16),
               qkv = at::randn({rows, 4096}, bf16), logits = at::randn({rows, 151936}, bf16);
    at::Tensor angle = at::rand({rows, 64}, bf16.dtype(at::kFloat));
    nn::SequenceView view = nn::PackedSequences({rows}, at::kCUDA);
    Line("AddRmsNorm decode", shape, CapturedMicroseconds([&] { nn::AddNorm(x, x, nn::NormKind::kRms, {norm, {}}, 1e-6); }), 0, 0);
    Line("GatedSilu decode", shape, CapturedMicroseconds([&] { nn::Gated(gate_up, {}); }), 0, 0);
    Line("QkNormRope decode", shape, CapturedMicroseconds([&] {
           nn::SplitQueryKeyValue(qkv, {16, 8, 128}, head_norm, head_norm, 1e-6, {angle, angle}, view, 0);
         }), 0, 0);
    at::Tensor draws = at::zeros({rows, 16}, bf16.dtype(at::kByte)), token = at::empty({rows}, bf16.dtype(at::kLong)),
               logprob = at::empty({rows}, bf16.dtype(at::kFloat));
    draws.view(at::kFloat).select(1, 3).fill_(1);
    at::Tensor scratch = at::empty({kernels::LogitScratchBytes(rows, 151936)}, bf16.dtype(at::kByte));
    kernels::TokenDraw draw;
    draw.logits = logits.const_data_ptr();
    draw.stride = draw.vocabulary = 151936;
    draw.row = static_cast<const kernels::DrawRow*>(draws.const_data_ptr());
    draw.token = token.mutable_data_ptr<int64_t>();
    draw.logprob = logprob.mutable_data_ptr<float>();
    draw.scratch = scratch.mutable_data_ptr();
    draw.rows = rows;
    Line("DrawTokens", shape, CapturedMicroseconds([&] {
           if (!kernels::DrawTokens(draw, tensor::CurrentStream()).ok()) Die("DrawTokens");
         }), 2.0 * rows * 151936, 0);
    for (const kernels::FilterRow& filter : {kernels::FilterRow{0.95, 0, 1, 20}, {0.95, 0, 1, 0}, {1, 0.05, 1, 0}}) {
      std::vector<kernels::FilterRow> filters(static_cast<size_t>(rows), filter);
      at::Tensor filter_N =
          at::from_blob(filters.data(), {rows * static_cast<int64_t>(sizeof(filter))}, at::kByte).to(at::kCUDA);
      const kernels::LogitFilter run{logits.mutable_data_ptr(), 151936,
                                     static_cast<const kernels::FilterRow*>(filter_N.const_data_ptr()), rows, 151936};
      Line("FilterLogits", shape + ", top_k " + std::to_string(filter.top_k) + ", top_p " + std::to_string(filter.top_p) +
           ", min_p " + std::to_string(filter.min_p), CapturedMicroseconds([&] {
             if (!kernels::FilterLogits(run, tensor::CurrentStream()).ok()) Die("FilterLogits");
           }), 2.0 * rows * 151936, 0);
    }
  }
  for (const std::string& line : kernels::ChosenProjections()) std::fprintf(stderr, "%s\n", line.c_str());
}

}  // namespace rein::gpu

#include "rollout/sampling/sampler.h"

#include <algorithm>
#include <limits>

#include <ATen/ATen.h>

#include "rollout/sampling/gumbel_noise.h"

namespace rein::rollout {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

at::Tensor Column(const std::vector<float>& values, at::Device device) {
  return at::tensor(values, at::kFloat).to(device).unsqueeze(1);
}

void Ban(const std::vector<RowDraw>& rows, at::Tensor& logits_BV) {
  std::vector<int64_t> row, token;
  for (size_t b = 0; b < rows.size(); ++b) {
    for (uint32_t id : rows[b].banned) {
      if (id >= logits_BV.size(1)) continue;
      row.push_back(static_cast<int64_t>(b));
      token.push_back(id);
    }
  }
  if (row.empty()) return;
  at::Tensor row_N = at::tensor(row, at::kLong).to(logits_BV.device());
  at::Tensor token_N = at::tensor(token, at::kLong).to(logits_BV.device());
  logits_BV.index_put_({row_N, token_N}, at::full({}, -kInfinity, logits_BV.options()));
}

bool Filters(const RowDraw& row) {
  return row.temperature > 0 && (row.top_k > 0 || row.top_p < 1 || row.min_p > 0);
}

// Which places of a row, sorted from likely to unlikely, are kept. One row: the sums of another
// never touch it.
at::Tensor KeptOfSorted(const at::Tensor& sorted_V, const RowDraw& draw) {
  const int64_t vocabulary = sorted_V.size(0);
  at::Tensor place = at::arange(vocabulary, sorted_V.options().dtype(at::kLong));
  at::Tensor kept = sorted_V > -kInfinity;
  if (draw.top_k > 0 && draw.top_k < vocabulary)
    kept = kept.logical_and_(place < int64_t{draw.top_k});
  if (draw.top_p < 1) {
    at::Tensor p =
        at::softmax(sorted_V.masked_fill(kept.logical_not(), -kInfinity), 0, at::kDouble);
    kept = kept.logical_and_(p.cumsum(0).sub_(p) < draw.top_p);  // mass before it
  }
  if (draw.min_p > 0) kept = kept.logical_and_((sorted_V - sorted_V[0]).exp() >= draw.min_p);
  return kept;
}

void Filter(const std::vector<RowDraw>& rows, at::Tensor& logits_BV) {
  for (size_t b = 0; b < rows.size(); ++b) {
    if (!Filters(rows[b])) continue;
    at::Tensor row_V = logits_BV[static_cast<int64_t>(b)];
    auto [sorted_V, order_V] = at::sort(row_V, /*stable=*/true, /*dim=*/0, /*descending=*/true);
    at::Tensor dropped = KeptOfSorted(sorted_V, rows[b]).logical_not_();
    row_V.copy_(
        at::empty_like(row_V).scatter_(0, order_V, sorted_V.masked_fill(dropped, -kInfinity)));
  }
}

std::vector<float> Host(const at::Tensor& x_B) {
  at::Tensor host = x_B.to(at::kCPU, at::kFloat).contiguous();
  return {host.const_data_ptr<float>(), host.const_data_ptr<float>() + host.numel()};
}

at::Tensor Chosen(const at::Tensor& logits_BV, const at::Tensor& token_B1) {
  return logits_BV.gather(1, token_B1).squeeze(1).sub_(logits_BV.logsumexp(1));
}

}  // namespace

Draws Sample(const at::Tensor& logits_BV, const std::vector<RowDraw>& rows) {
  const at::Device device = logits_BV.device();
  std::vector<float> temperature;
  std::vector<const NoiseKey*> keys;
  bool random = false;
  for (const RowDraw& row : rows) {
    temperature.push_back(row.temperature > 0 ? static_cast<float>(row.temperature) : 1.0f);
    keys.push_back(row.temperature > 0 ? &row.noise : nullptr);
    random |= row.temperature > 0;
  }
  at::Tensor drawn_from_BV = logits_BV.div(Column(temperature, device));
  Ban(rows, drawn_from_BV);
  Filter(rows, drawn_from_BV);
  at::Tensor token_B1;
  if (random) {
    at::Tensor noise_BV = GumbelNoise(keys, logits_BV.size(1), device);
    token_B1 = noise_BV.add_(drawn_from_BV).argmax(1, /*keepdim=*/true);
  } else {
    token_B1 = drawn_from_BV.argmax(1, /*keepdim=*/true);
  }
  Draws draws;
  at::Tensor host = token_B1.to(at::kCPU).contiguous();
  const int64_t* tokens = host.const_data_ptr<int64_t>();
  draws.token.assign(tokens, tokens + host.numel());
  draws.logprob = Host(Chosen(drawn_from_BV, token_B1));
  if (std::any_of(rows.begin(), rows.end(), [](const RowDraw& row) { return row.untempered; })) {
    draws.untempered_logprob = Host(Chosen(logits_BV, token_B1));
  }
  return draws;
}

}  // namespace rein::rollout

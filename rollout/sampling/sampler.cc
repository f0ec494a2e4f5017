#include "rollout/sampling/sampler.h"

#include <algorithm>
#include <limits>
#include <tuple>

#include <ATen/ATen.h>

#include "common/tensor/transfer.h"
#include "rollout/sampling/gumbel_noise.h"

namespace rein::rollout {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
// top_p and min_p look at so many tokens first, and at all of them only when these do not suffice.
constexpr int64_t kFirstCandidates = 512;

at::Tensor Column(const std::vector<float>& values, at::Device device) {
  return at::tensor(values, at::kFloat).to(device).unsqueeze(1);
}

// The likeliest `count` of a row, likeliest first.
std::tuple<at::Tensor, at::Tensor> Likeliest(const at::Tensor& row_V, int64_t count) {
  if (count < row_V.size(0)) return at::topk(row_V, count);
  return at::sort(row_V, /*stable=*/true, /*dim=*/0, /*descending=*/true);
}

// Which of a row's likeliest are kept; `log_mass` is the logarithm of the sum that top_p is a share
// of.
at::Tensor Kept(const at::Tensor& sorted_C, const at::Tensor& log_mass, const RowDraw& draw) {
  at::Tensor kept_C = sorted_C > -kInfinity;
  if (draw.top_p < 1) {
    at::Tensor p_C = (sorted_C - log_mass).to(at::kDouble).exp_();
    kept_C = kept_C.logical_and_(p_C.cumsum(0).sub_(p_C) < draw.top_p);  // the mass before it
  }
  if (draw.min_p > 0) kept_C = kept_C.logical_and_((sorted_C - sorted_C[0]).exp_() >= draw.min_p);
  return kept_C;
}

// Sets what is filtered to -infinity. One row alone: the sums of another never touch it.
void FilterRow(const RowDraw& draw, at::Tensor row_V) {
  const int64_t vocabulary = row_V.size(0);
  const bool counted = draw.top_k > 0;
  int64_t candidates = std::min(vocabulary, counted ? int64_t{draw.top_k} : kFirstCandidates);
  while (true) {
    auto [sorted_C, order_C] = Likeliest(row_V, candidates);
    at::Tensor log_mass = (counted ? sorted_C : row_V).logsumexp(0);
    at::Tensor kept_C = Kept(sorted_C, log_mass, draw);
    if (!counted && candidates < vocabulary && kept_C[candidates - 1].item<bool>()) {
      candidates = vocabulary;  // more may be kept than were looked at
      continue;
    }
    at::Tensor values_C = sorted_C.masked_fill(kept_C.logical_not_(), -kInfinity);
    row_V.fill_(-kInfinity);
    row_V.scatter_(0, order_C, values_C);
    return;
  }
}

void Filter(const std::vector<RowDraw>& rows, const at::Tensor& logits_BV) {
  for (size_t b = 0; b < rows.size(); ++b) {
    if (HasFilters(rows[b])) FilterRow(rows[b], logits_BV[static_cast<int64_t>(b)]);
  }
}

bool HavePenalties(const std::vector<RowDraw>& rows) {
  return std::any_of(rows.begin(), rows.end(), [](const RowDraw& row) { return row.penalties.any(); });
}

// Token ids on the device of `like`; nothing waits.
at::Tensor Ids(const uint32_t* begin, const uint32_t* end, const at::Tensor& like) {
  return tensor::ToDevice(at::tensor(std::vector<int64_t>(begin, end), at::kLong), like.device());
}

// Penalised and tempered logits, -infinity for what is banned or filtered.
at::Tensor DrawnFrom(const at::Tensor& raw_BV, const std::vector<RowDraw>& rows) {
  at::Tensor logits_BV = raw_BV;
  if (HavePenalties(rows)) {
    logits_BV = raw_BV.clone();
    Penalise(rows, logits_BV);
  }
  std::vector<float> temperature;
  for (const RowDraw& row : rows) {
    temperature.push_back(row.temperature > 0 ? static_cast<float>(row.temperature) : 1.0f);
  }
  at::Tensor drawn_from_BV = logits_BV.div(Column(temperature, logits_BV.device()));
  Ban(rows, drawn_from_BV);
  Filter(rows, drawn_from_BV);
  return drawn_from_BV;
}

std::vector<float> Host(const at::Tensor& x_B) {
  at::Tensor host = x_B.to(at::kCPU, at::kFloat).contiguous();
  return {host.const_data_ptr<float>(), host.const_data_ptr<float>() + host.numel()};
}

at::Tensor Chosen(const at::Tensor& logits_BV, const at::Tensor& token_B1) {
  return logits_BV.gather(1, token_B1).squeeze(1).sub_(logits_BV.logsumexp(1));
}

}  // namespace

void Penalise(const std::vector<RowDraw>& rows, at::Tensor& logits_BV, const std::vector<at::Tensor>& awaited) {
  const auto floats = logits_BV.options().dtype(at::kFloat);
  for (size_t b = 0; b < rows.size(); ++b) {
    const RowDraw& row = rows[b];
    if (!row.penalties.any()) continue;
    at::Tensor logit_V = logits_BV[static_cast<int64_t>(b)];
    at::Tensor written_V = at::zeros(logit_V.sizes(), floats), asked_V = at::zeros(logit_V.sizes(), floats);
    auto count = [&](const at::Tensor& ids_N, at::Tensor& to_V) {  // whole numbers: exact in any order
      to_V.index_add_(0, ids_N, at::ones(ids_N.sizes(), floats));
    };
    const uint32_t* seen = row.seen.data();
    const size_t prompt = std::min(row.prompt_tokens, row.seen.size());
    if (prompt > 0) count(Ids(seen, seen + prompt, logit_V), asked_V);
    if (prompt < row.seen.size()) count(Ids(seen + prompt, seen + row.seen.size(), logit_V), written_V);
    if (b < awaited.size() && awaited[b].defined()) count(awaited[b].view({1}), written_V);
    at::Tensor x_V = logit_V.to(at::kFloat);
    if (const double r = row.penalties.repetition; r != 1) {
      at::Tensor penalised_V = at::where(x_V > 0, x_V / r, x_V * r);
      x_V = at::where(asked_V.add_(written_V) > 0, penalised_V, x_V);
    }
    x_V = x_V - row.penalties.frequency * written_V - row.penalties.presence * (written_V > 0).to(at::kFloat);
    logit_V.copy_(x_V);
  }
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
  auto on_device = [&](const std::vector<int64_t>& values) {
    return tensor::ToDevice(at::tensor(values, at::kLong), logits_BV.device());
  };
  at::Tensor row_N = on_device(row), token_N = on_device(token);
  logits_BV.index_put_({row_N, token_N}, at::full({}, -kInfinity, logits_BV.options()));
}

at::Tensor Filtered(const at::Tensor& logits_BV, const std::vector<RowDraw>& rows) {
  at::Tensor kept_BV = DrawnFrom(logits_BV.to(at::kFloat), rows) > -kInfinity;
  return logits_BV.masked_fill(kept_BV.logical_not_(), -kInfinity);
}

Draws Sample(const at::Tensor& logits_BV, const std::vector<RowDraw>& rows) {
  const at::Device device = logits_BV.device();
  std::vector<const NoiseKey*> keys;
  bool random = false;
  for (const RowDraw& row : rows) {
    keys.push_back(row.temperature > 0 ? &row.noise : nullptr);
    random |= row.temperature > 0;
  }
  at::Tensor drawn_from_BV = DrawnFrom(logits_BV, rows);
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

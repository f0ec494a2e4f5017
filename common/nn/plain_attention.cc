#include "common/nn/plain_attention.h"

#include <ATen/ATen.h>

#include <limits>

#include "common/nn/leaf.h"

namespace rein::nn {
namespace {

constexpr double kHidden = -std::numeric_limits<double>::infinity();

// q [.., H, N, C], k [.., H, M, C], v [.., H, M, D] and the positions of queries [.., N, 1] and keys [.., 1, M]
// -> [.., H, N, D]. Positions are broadcast over heads.
at::Tensor Attend(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                  const at::Tensor& query_at, const at::Tensor& key_at, const AttentionRule& rule) {
  at::Tensor score = q.matmul(k.transpose(-1, -2)) * rule.scale;
  if (rule.softcap > 0) score = at::tanh(score / rule.softcap) * rule.softcap;
  at::Tensor distance = query_at - key_at;
  if (rule.alibi_H.defined()) {
    at::Tensor slope = rule.alibi_H.to(score.scalar_type()).view({-1, 1, 1});
    score = score - slope * distance.unsqueeze(-3);
  }
  at::Tensor hidden = distance < 0;
  if (rule.window > 0) hidden = hidden.logical_or(distance >= rule.window);
  score = score.masked_fill(hidden.unsqueeze(-3), kHidden);
  if (!rule.sinks_H.defined()) return at::softmax(score, -1).matmul(v);
  at::Tensor sink = Leaf(rule.sinks_H, score.scalar_type()).view({-1, 1, 1});
  std::vector<int64_t> shape = score.sizes().vec();
  shape.back() = 1;
  at::Tensor weight = at::softmax(at::cat({score, sink.expand(shape)}, -1), -1);
  return weight.narrow(-1, 0, score.size(-1)).matmul(v);
}

at::ScalarType Wide(const at::Tensor& q) {
  return q.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

// Queries of one sequence at a time over so many keys, so that a long one's scores stay within reason.
constexpr int64_t kQueries = 1024;

at::Tensor AttendSequence(const at::Tensor& q_NHC, const at::Tensor& k_NKC, const at::Tensor& v_NKD,
                          const AttentionRule& rule) {
  const int64_t n = q_NHC.size(0), repeat = q_NHC.size(1) / k_NKC.size(1);
  const at::ScalarType type = Wide(q_NHC);
  at::Tensor q = q_NHC.to(type).transpose(0, 1);
  at::Tensor k = k_NKC.to(type).transpose(0, 1).repeat_interleave(repeat, 0);
  at::Tensor v = v_NKD.to(type).transpose(0, 1).repeat_interleave(repeat, 0);
  at::Tensor at_N = at::arange(n, q_NHC.options().dtype(at::kLong).requires_grad(false));
  std::vector<at::Tensor> rows;
  for (int64_t begin = 0; begin < n; begin += kQueries) {
    const int64_t end = std::min(n, begin + kQueries);
    const int64_t first = rule.window > 0 ? std::max<int64_t>(0, begin - rule.window + 1) : 0;
    rows.push_back(Attend(q.narrow(1, begin, end - begin), k.narrow(1, first, end - first),
                          v.narrow(1, first, end - first), at_N.slice(0, begin, end).unsqueeze(1),
                          at_N.slice(0, first, end).unsqueeze(0), rule));
  }
  at::Tensor out = rows.size() == 1 ? rows[0] : at::cat(rows, 1);
  return out.transpose(0, 1).to(q_NHC.scalar_type());
}

// Queries of `rows` sequences, equally many each, at the given positions: q [B, N, H, C], position [B, N].
at::Tensor AttendRows(const at::Tensor& q_BNHC, const at::Tensor& key_pages,
                      const at::Tensor& value_pages, const at::Tensor& pages_BP,
                      const at::Tensor& position_BN, const AttentionRule& rule) {
  const int64_t rows = q_BNHC.size(0), repeat = q_BNHC.size(2) / key_pages.size(2);
  at::Tensor used = pages_BP.reshape({-1});
  auto gather = [&](const at::Tensor& pool) {  // [B, K, M, C]
    at::Tensor x = pool.index_select(0, used).to(Wide(q_BNHC));
    return x.view({rows, -1, pool.size(2), pool.size(3)}).transpose(1, 2);
  };
  at::Tensor k = gather(key_pages), v = gather(value_pages);
  at::Tensor key_at = at::arange(k.size(2), position_BN.options());
  // What was never written may be anything: weight 0 must not meet NaN.
  at::Tensor unseen = key_at > position_BN.amax(1, /*keepdim=*/true);
  v = v.masked_fill(unseen.view({rows, 1, -1, 1}), 0);
  at::Tensor out = Attend(q_BNHC.to(Wide(q_BNHC)).transpose(1, 2), k.repeat_interleave(repeat, 1),
                          v.repeat_interleave(repeat, 1), position_BN.unsqueeze(2),
                          key_at.view({1, 1, -1}), rule);
  return out.transpose(1, 2).to(q_BNHC.scalar_type());
}

}  // namespace

at::Tensor AttendPacked(const at::Tensor& q_THC, const at::Tensor& k_TKC, const at::Tensor& v_TKD,
                        const SequenceView& view, const AttentionRule& rule) {
  std::vector<at::Tensor> rows;
  for (int64_t b = 0; b < view.num_sequences(); ++b) {
    const int64_t begin = view.offsets[b], length = view.offsets[b + 1] - begin;
    rows.push_back(AttendSequence(q_THC.narrow(0, begin, length), k_TKC.narrow(0, begin, length),
                                  v_TKD.narrow(0, begin, length), rule));
  }
  return at::cat(rows, 0);
}

at::Tensor AttendPages(const at::Tensor& q_THC, const at::Tensor& key_pages,
                       const at::Tensor& value_pages, const SequenceView& view,
                       const AttentionRule& rule) {
  const at::Tensor& pages_BP = view.pages->pages_BP;
  if (view.longest == 1 && q_THC.size(0) == view.num_sequences()) {
    return AttendRows(q_THC.unsqueeze(1), key_pages, value_pages, pages_BP,
                      view.position_T.unsqueeze(1), rule)
        .squeeze(1);
  }
  std::vector<at::Tensor> rows;
  for (int64_t b = 0; b < view.num_sequences(); ++b) {
    const int64_t begin = view.offsets[b], length = view.offsets[b + 1] - begin;
    if (length == 0) continue;
    rows.push_back(AttendRows(q_THC.narrow(0, begin, length).unsqueeze(0), key_pages, value_pages,
                              pages_BP.narrow(0, b, 1),
                              view.position_T.narrow(0, begin, length).unsqueeze(0), rule)
                       .squeeze(0));
  }
  return at::cat(rows, 0);
}

}  // namespace rein::nn

#include "common/nn/attention.h"

#include <ATen/ATen.h>

#include "common/nn/autograd.h"
#include "common/nn/paged_attention_cpu.h"

namespace rein::nn {
namespace {

// [B, L] rows of packed token indices; rows are padded by repeating a token, which causality hides.
at::Tensor PaddedIndex(const SequenceView& view) {
  const int64_t rows = view.num_sequences(), length = view.longest;
  at::Tensor index_BL = at::empty({rows, length}, at::kLong);
  auto* index = index_BL.mutable_data_ptr<int64_t>();
  for (int64_t b = 0; b < rows; ++b) {
    const int64_t begin = view.offsets[b], end = view.offsets[b + 1];
    for (int64_t l = 0; l < length; ++l) {
      index[b * length + l] = std::min(begin + l, std::max(end - 1, int64_t{0}));
    }
  }
  return index_BL;
}

// For each packed token its place in the padded rows.
at::Tensor PackedIndex(const SequenceView& view) {
  at::Tensor index_T = at::empty({view.offsets.back()}, at::kLong);
  auto* index = index_T.mutable_data_ptr<int64_t>();
  for (int64_t b = 0; b < view.num_sequences(); ++b) {
    for (int64_t t = view.offsets[b]; t < view.offsets[b + 1]; ++t) {
      index[t] = b * view.longest + (t - view.offsets[b]);
    }
  }
  return index_T;
}

// Packed [T, K, C] <-> padded [B, H, L, C], each kv head repeated for its query heads.
struct Padding {
  Padding(int64_t rows, int64_t length, at::Tensor to_rows, at::Tensor to_packed)
      : rows(rows), length(length), to_rows(std::move(to_rows)), to_packed(std::move(to_packed)) {}
  explicit Padding(const SequenceView& view)
      : rows(view.num_sequences()), length(view.longest), to_rows(PaddedIndex(view).view(-1)),
        to_packed(PackedIndex(view)) {}

  at::Tensor Pad(const at::Tensor& x_TKC, int64_t repeat) const {
    at::Tensor x = x_TKC.index_select(0, to_rows);
    x = x.view({rows, length, x_TKC.size(1), x_TKC.size(2)}).transpose(1, 2);
    return repeat == 1 ? x.contiguous() : x.repeat_interleave(repeat, 1);
  }
  // Sums the gradients of a kv head's copies when `repeat` is above 1.
  at::Tensor Unpad(const at::Tensor& x_BHLC, int64_t repeat) const {
    at::Tensor x = x_BHLC;
    if (repeat > 1) x = x.reshape({rows, x.size(1) / repeat, repeat, length, x.size(3)}).sum(2);
    x = x.transpose(1, 2).reshape({rows * length, x.size(1), x.size(3)});
    return x.index_select(0, to_packed);
  }
  // [T, H, C] -> [B, H, L, C] with zeros in padded places.
  at::Tensor Scatter(const at::Tensor& x_THC) const {
    at::Tensor x = at::zeros({rows * length, x_THC.size(1), x_THC.size(2)}, x_THC.options());
    x.index_copy_(0, to_packed, x_THC);
    return x.view({rows, length, x_THC.size(1), x_THC.size(2)}).transpose(1, 2).contiguous();
  }

  int64_t rows, length;
  at::Tensor to_rows, to_packed;
};

struct CpuAttention : public Function<CpuAttention> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& q_THC,
                            const at::Tensor& k_TKC, const at::Tensor& v_TKC,
                            const SequenceView& view, double scale) {
    Padding padding(view);
    const int64_t repeat = q_THC.size(1) / k_TKC.size(1);
    at::Tensor q = padding.Pad(q_THC, 1), k = padding.Pad(k_TKC, repeat),
               v = padding.Pad(v_TKC, repeat);
    auto [out, lse] = at::_scaled_dot_product_flash_attention_for_cpu(
        q, k, v, /*dropout_p=*/0, /*is_causal=*/true, /*attn_mask=*/{}, scale);
    if (context != nullptr) {
      context->saved_data["rows"] = padding.rows;
      context->saved_data["length"] = padding.length;
      context->saved_data["repeat"] = repeat;
      context->saved_data["scale"] = scale;
      Store(context, "to_rows", padding.to_rows);
      Store(context, "to_packed", padding.to_packed);
      Store(context, "q", q);
      Store(context, "k", k);
      Store(context, "v", v);
      Store(context, "out", out);
      Store(context, "lse", lse);
    }
    return padding.Unpad(out, 1);
  }

  static tensor_list backward(AutogradContext* context, tensor_list dy) {
    Padding padding(context->saved_data["rows"].toInt(), context->saved_data["length"].toInt(),
                    Stored(context, "to_rows"), Stored(context, "to_packed"));
    const int64_t repeat = context->saved_data["repeat"].toInt();
    auto [dq, dk, dv] = at::_scaled_dot_product_flash_attention_for_cpu_backward(
        padding.Scatter(dy[0]), Stored(context, "q"), Stored(context, "k"), Stored(context, "v"),
        Stored(context, "out"), Stored(context, "lse"), /*dropout_p=*/0, /*is_causal=*/true,
        /*attn_mask=*/{}, context->saved_data["scale"].toDouble());
    return {padding.Unpad(dq, 1), padding.Unpad(dk, repeat), padding.Unpad(dv, repeat),
            at::Tensor(), at::Tensor()};
  }
};

// FlashAttention-2 over packed sequences, as LibTorch has it (grouped heads included).
struct CudaAttention : public Function<CudaAttention> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& q_THC,
                            const at::Tensor& k_TKC, const at::Tensor& v_TKC,
                            const SequenceView& view, double scale) {
    auto [out, lse, rng_state, unused, debug] = at::_flash_attention_forward(
        q_THC, k_TKC, v_TKC, view.offsets_device, view.offsets_device, view.longest, view.longest,
        /*dropout_p=*/0, /*is_causal=*/true, /*return_debug_mask=*/false, scale);
    if (context != nullptr) {
      context->saved_data["longest"] = view.longest;
      context->saved_data["scale"] = scale;
      Store(context, "offsets", view.offsets_device);
      Store(context, "q", q_THC);
      Store(context, "k", k_TKC);
      Store(context, "v", v_TKC);
      Store(context, "out", out.detach());  // an output itself would be a cycle
      Store(context, "lse", lse);
      Store(context, "rng_state", rng_state);
      Store(context, "unused", unused);
    }
    return out;
  }

  static tensor_list backward(AutogradContext* context, tensor_list dy) {
    at::Tensor offsets = Stored(context, "offsets");
    const int64_t longest = context->saved_data["longest"].toInt();
    auto [dq, dk, dv] = at::_flash_attention_backward(
        dy[0].contiguous(), Stored(context, "q"), Stored(context, "k"), Stored(context, "v"),
        Stored(context, "out"), Stored(context, "lse"), offsets, offsets, longest, longest,
        /*dropout_p=*/0, /*is_causal=*/true, Stored(context, "rng_state"),
        Stored(context, "unused"), context->saved_data["scale"].toDouble());
    return {dq, dk, dv, at::Tensor(), at::Tensor()};
  }
};

void WritePages(const at::Tensor& k_TKC, const at::Tensor& v_TKC, const PageMap& map, int layer) {
  KvPages& pages = (*map.layers)[layer];
  pages.key.view({-1, k_TKC.size(1), k_TKC.size(2)}).index_copy_(0, map.slot_T, k_TKC);
  pages.value.view({-1, k_TKC.size(1), k_TKC.size(2)}).index_copy_(0, map.slot_T, v_TKC);
}

at::Tensor PagedCpu(const at::Tensor& q_THC, const SequenceView& view, int layer, double scale) {
  const PageMap& map = *view.pages;
  const KvPages& pages = (*map.layers)[layer];
  at::Tensor q = q_THC.contiguous();
  at::Tensor out = at::empty_like(q);
  std::vector<int64_t> row_T(static_cast<size_t>(q.size(0)));
  for (int64_t b = 0; b < view.num_sequences(); ++b) {
    std::fill(row_T.begin() + view.offsets[b], row_T.begin() + view.offsets[b + 1], b);
  }
  PagedAttentionShape shape{q.size(1), pages.key.size(2), q.size(2), map.page_tokens,
                            map.pages_BP.size(1), scale};
  PagedAttentionCpu(q.const_data_ptr<float>(), pages.key.const_data_ptr<float>(),
                    pages.value.const_data_ptr<float>(), map.pages_BP.const_data_ptr<int32_t>(),
                    row_T.data(), view.position_T.const_data_ptr<int64_t>(), q.size(0), shape,
                    out.mutable_data_ptr<float>());
  return out;
}

// FlashAttention-2 takes 16-bit types and head dims that are multiples of 8; the rest goes the plain way.
bool FlashTakes(const at::Tensor& q_THC) {
  return q_THC.scalar_type() != at::kFloat && q_THC.size(2) % 8 == 0 && q_THC.size(2) <= 256;
}

// Queries are the last of the keys' positions: query i of n sees keys 0 .. m - n + i.
at::Tensor AttendPlainly(const at::Tensor& q_NHC, const at::Tensor& k_MKC, const at::Tensor& v_MKC,
                         double scale) {
  const int64_t n = q_NHC.size(0), m = k_MKC.size(0), repeat = q_NHC.size(1) / k_MKC.size(1);
  const at::ScalarType type = q_NHC.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  at::Tensor q = q_NHC.to(type).transpose(0, 1);
  at::Tensor k = k_MKC.to(type).transpose(0, 1).repeat_interleave(repeat, 0);
  at::Tensor v = v_MKC.to(type).transpose(0, 1).repeat_interleave(repeat, 0);
  at::Tensor score = q.matmul(k.transpose(1, 2)) * scale;
  at::Tensor hidden = at::ones({n, m}, q_NHC.options().dtype(at::kBool)).triu(m - n + 1);
  score = score.masked_fill(hidden, -std::numeric_limits<double>::infinity());
  return at::softmax(score, -1).matmul(v).transpose(0, 1).to(q_NHC.scalar_type());
}

// Gathers the pages of every sequence into packed keys and values, then runs FlashAttention-2, whose
// causal mask is aligned to the last key.
at::Tensor PagedCuda(const at::Tensor& q_THC, const SequenceView& view, int layer, double scale) {
  const PageMap& map = *view.pages;
  const KvPages& pages = (*map.layers)[layer];
  TORCH_CHECK(map.context_slot_N.defined(), "PlanGather was not called for this step");
  auto gather = [&](const at::Tensor& pool) {
    return pool.view({-1, pool.size(2), pool.size(3)}).index_select(0, map.context_slot_N);
  };
  at::Tensor k = gather(pages.key), v = gather(pages.value);
  if (FlashTakes(q_THC)) {
    return std::get<0>(at::_flash_attention_forward(
        q_THC, k, v, view.offsets_device, map.context_ends, view.longest, map.longest_context,
        /*dropout_p=*/0, /*is_causal=*/true, /*return_debug_mask=*/false, scale));
  }
  int64_t key = 0;
  std::vector<at::Tensor> rows;
  for (int64_t b = 0; b < view.num_sequences(); ++b) {
    const int64_t begin = view.offsets[b], keys = map.context_B[b];
    rows.push_back(AttendPlainly(q_THC.narrow(0, begin, view.offsets[b + 1] - begin),
                                 k.narrow(0, key, keys), v.narrow(0, key, keys), scale));
    key += keys;
  }
  return at::cat(rows, 0);
}

}  // namespace

at::Tensor Attention(const at::Tensor& q_THC, const at::Tensor& k_TKC, const at::Tensor& v_TKC,
                     const SequenceView& view, int layer, double scale) {
  const bool cuda = q_THC.is_cuda();
  if (view.pages != nullptr) {
    WritePages(k_TKC, v_TKC, *view.pages, layer);
    return cuda ? PagedCuda(q_THC, view, layer, scale) : PagedCpu(q_THC, view, layer, scale);
  }
  if (cuda && !FlashTakes(q_THC)) return AttentionReference(q_THC, k_TKC, v_TKC, view, scale);
  if (!Records(q_THC)) {
    return cuda ? CudaAttention::forward(nullptr, q_THC, k_TKC, v_TKC, view, scale)
                : CpuAttention::forward(nullptr, q_THC, k_TKC, v_TKC, view, scale);
  }
  return cuda ? CudaAttention::apply(q_THC, k_TKC, v_TKC, view, scale)
              : CpuAttention::apply(q_THC, k_TKC, v_TKC, view, scale);
}

at::Tensor AttentionReference(const at::Tensor& q_THC, const at::Tensor& k_TKC,
                              const at::Tensor& v_TKC, const SequenceView& view, double scale) {
  std::vector<at::Tensor> rows;
  for (int64_t b = 0; b < view.num_sequences(); ++b) {
    const int64_t begin = view.offsets[b], length = view.offsets[b + 1] - begin;
    rows.push_back(AttendPlainly(q_THC.narrow(0, begin, length), k_TKC.narrow(0, begin, length),
                                 v_TKC.narrow(0, begin, length), scale));
  }
  return at::cat(rows, 0);
}

}  // namespace rein::nn

#include "common/nn/attention.h"

#include <ATen/ATen.h>

#include <bit>

#include "common/kernels/attention.h"
#include "common/kernels/attention_backward.h"
#include "common/kernels/latent_decode.h"
#include "common/nn/autograd.h"
#include "common/nn/fp8.h"
#include "common/nn/functions.h"
#include "common/nn/latent_decode.h"
#include "common/nn/launched.h"
#include "common/nn/paged_attention_cpu.h"
#include "common/nn/plain_attention.h"

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

// With zeros behind.
at::Tensor Widened(const at::Tensor& x_TKC, int64_t width) { return at::constant_pad_nd(x_TKC, {0, width - x_TKC.size(2)}); }

// The kernels' forward; from its output and log-sum-exp their backward.
struct CudaAttention : public Function<CudaAttention> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& q_THC,
                            const at::Tensor& k_TKC, const at::Tensor& v_TKC,
                            const SequenceView& view, const AttentionRule& rule) {
    at::Tensor lse_TH;
    if (context != nullptr) lse_TH = at::empty({q_THC.size(0), q_THC.size(1)}, q_THC.options().dtype(at::kFloat));
    at::Tensor out = KernelForward(q_THC, k_TKC, v_TKC, view, rule, lse_TH);
    if (context != nullptr) {
      context->saved_data["longest"] = view.longest;
      context->saved_data["scale"] = rule.scale;
      context->saved_data["window"] = rule.window;
      context->saved_data["softcap"] = rule.softcap;
      Store(context, "alibi", rule.alibi_H);
      StoreWeight(context, rule.sinks_H);
      Store(context, "offsets", view.offsets_device);
      if (view.shared != nullptr) {
        const SharedPrompts& shared = *view.shared;
        Store(context, "prompt_begin", shared.prompt_begin_G);
        Store(context, "prompt_length", shared.prompt_length_G);
        Store(context, "tail_begin", shared.tail_begin_G);
        Store(context, "tail_length", shared.tail_length_G);
        context->saved_data["longest_prompt"] = shared.longest_prompt;
        context->saved_data["longest_tail"] = shared.longest_tail;
      }
      Store(context, "q", q_THC);
      Store(context, "k", k_TKC);
      Store(context, "v", v_TKC);
      Store(context, "out", out.detach());  // an output itself would be a cycle
      Store(context, "lse", lse_TH);
    }
    return out;
  }

  static tensor_list backward(AutogradContext* context, tensor_list dy) {
    AttentionRule rule(context->saved_data["scale"].toDouble());
    rule.window = context->saved_data["window"].toInt();
    rule.softcap = context->saved_data["softcap"].toDouble();
    rule.alibi_H = Stored(context, "alibi");
    rule.sinks_H = StoredWeight(context);
    const Inputs in{Dense(Stored(context, "q")), Dense(Stored(context, "k")), Dense(Stored(context, "v")),
                    Stored(context, "out"), dy[0].contiguous(), Stored(context, "lse"), rule};
    tensor_list d = KernelBackward(in, {.query_begin = Stored(context, "offsets"),
                                        .longest_query = context->saved_data["longest"].toInt()});
    at::Tensor tail_begin = Stored(context, "tail_begin");
    if (tail_begin.defined()) {
      // What continues a prompt sees its own tokens, done above, and all of the prompt: softmax's gradient is a sum
      // over keys once the log-sum-exp of all is known.
      tensor_list of_prompts =
          KernelBackward(in, {.query_begin = tail_begin,
                              .query_length = Stored(context, "tail_length"),
                              .key_begin = Stored(context, "prompt_begin"),
                              .key_length = Stored(context, "prompt_length"),
                              .longest_query = context->saved_data["longest_tail"].toInt(),
                              .longest_key = context->saved_data["longest_prompt"].toInt()});
      for (int i = 0; i < 3; ++i) d[i].add_(of_prompts[i]);
    }
    return {d[0], d[1], d[2], at::Tensor(), at::Tensor()};
  }

  struct Inputs {
    at::Tensor q, k, v, out, dout, lse_TH;
    AttentionRule rule;
  };
  // int32 [B] each, on the device. Only query_begin, [B + 1]: causal, keys as queries.
  struct Ranges {
    at::Tensor query_begin, query_length = {}, key_begin = {}, key_length = {};
    int64_t longest_query = 0, longest_key = 0;
  };
  static tensor_list KernelBackward(const Inputs& in, const Ranges& ranges) {
    const bool causal = !ranges.key_begin.defined();
    auto gradient = [&](const at::Tensor& x) {  // of tokens in no range: none
      return causal ? at::empty(x.sizes(), x.options()) : at::zeros(x.sizes(), x.options());
    };
    at::Tensor dq = gradient(in.q), dk = gradient(in.k), dv = gradient(in.v);
    auto ints = [](const at::Tensor& x) { return x.defined() ? x.const_data_ptr<int32_t>() : nullptr; };
    kernels::AttentionBackward run;
    run.q = in.q.const_data_ptr();
    run.k = in.k.const_data_ptr();
    run.v = in.v.const_data_ptr();
    run.out = in.out.const_data_ptr();
    run.dout = in.dout.const_data_ptr();
    run.lse = in.lse_TH.const_data_ptr<float>();
    run.query = {ints(ranges.query_begin), ints(ranges.query_length)};
    run.key = causal ? run.query : kernels::Ragged{ints(ranges.key_begin), ints(ranges.key_length)};
    run.causal = causal;
    run.dq = dq.mutable_data_ptr();
    run.dk = dk.mutable_data_ptr();
    run.dv = dv.mutable_data_ptr();
    run.q_stride = in.q.stride(0);
    run.k_stride = in.k.stride(0);
    run.v_stride = in.v.stride(0);
    run.tokens = in.q.size(0);
    run.sequences = ranges.query_begin.size(0) - (causal ? 1 : 0);
    run.longest_query = ranges.longest_query;
    run.longest_key = causal ? ranges.longest_query : ranges.longest_key;
    run.heads = in.q.size(1);
    run.kv_heads = in.k.size(1);
    run.head_dim = in.q.size(2);
    run.value_dim = in.v.size(2);
    run.scale = static_cast<float>(in.rule.scale);
    run.rule = Rule(in.rule);
    // A sink stands beside all keys of a query: it is counted once.
    at::Tensor sink_grad = in.rule.sinks_H.grad;
    if (causal && sink_grad.defined()) run.dsinks = sink_grad.mutable_data_ptr<float>();
    tensor_list held;
    auto allocate = [&](int64_t bytes) {
      held.push_back(at::empty({bytes}, in.q.options().dtype(at::kByte)));
      return held.back().mutable_data_ptr();
    };
    const absl::Status status = kernels::AttendBackward(run, allocate, Stream());
    if (absl::IsUnimplemented(status) && run.head_dim != run.value_dim) {  // of one width, then
      const int64_t width = kernels::AttentionDimAbove(std::max(run.head_dim, run.value_dim));
      Inputs wide = in;
      for (at::Tensor* x : {&wide.q, &wide.k, &wide.v, &wide.out, &wide.dout}) *x = Widened(*x, width);
      tensor_list d = KernelBackward(wide, ranges);
      return {d[0].narrow(2, 0, run.head_dim), d[1].narrow(2, 0, run.head_dim), d[2].narrow(2, 0, run.value_dim)};
    }
    Launched(status);
    return {dq, dk, dv};
  }

  static at::Tensor KernelForward(const at::Tensor& q_THC, const at::Tensor& k_TKC,
                                  const at::Tensor& v_TKC, const SequenceView& view, const AttentionRule& rule,
                                  at::Tensor lse_TH) {
    at::Tensor q = Dense(q_THC), k = Dense(k_TKC), v = Dense(v_TKC);
    if (view.shared != nullptr) {  // the kernel wants a sequence's keys side by side
      k = k.index_select(0, view.shared->source_E);
      v = v.index_select(0, view.shared->source_E);
    }
    at::Tensor out = at::empty({q.size(0), q.size(1), v.size(2)}, q.options());
    kernels::AttentionForward run = Shape(q, out, view, k.size(1), rule);
    run.keys.key = k.const_data_ptr();
    run.keys.value = v.const_data_ptr();
    run.keys.key_stride = k.stride(0);
    run.keys.value_stride = v.stride(0);
    run.keys.tokens = k.size(0);
    run.keys.begin = view.shared == nullptr ? run.query_begin : view.shared->begin_S.const_data_ptr<int32_t>();
    if (lse_TH.defined()) {
      run.lse = lse_TH.mutable_data_ptr<float>();
      run.lse_token_stride = lse_TH.stride(0);
      run.lse_head_stride = lse_TH.stride(1);
    }
    Prefill(run, view.longest, q);
    return out;
  }

  static void Prefill(kernels::AttentionForward& run, int64_t longest, const at::Tensor& like) {
    at::Tensor counter = at::empty({1}, like.options().dtype(at::kInt));
    run.counter = counter.mutable_data_ptr<int32_t>();
    Launched(kernels::AttendPrefill(run, longest, Stream()));
  }

  // Heads of a token side by side, tokens any distance apart.
  static at::Tensor Dense(const at::Tensor& x_THC) {
    const bool dense = x_THC.stride(2) == 1 && x_THC.stride(1) == x_THC.size(2) &&
                       x_THC.stride(0) % 8 == 0;
    return dense ? x_THC : x_THC.contiguous();
  }

  static kernels::ScoreRule Rule(const AttentionRule& rule) {
    kernels::ScoreRule of_kernels;
    of_kernels.window = static_cast<int32_t>(rule.window);
    of_kernels.softcap = static_cast<float>(rule.softcap);
    if (rule.alibi_H.defined()) of_kernels.alibi = rule.alibi_H.const_data_ptr<float>();
    if (rule.sinks_H.defined()) of_kernels.sinks = rule.sinks_H.value.const_data_ptr();
    return of_kernels;
  }

  static kernels::AttentionForward Shape(const at::Tensor& q_THC, at::Tensor& out,
                                         const SequenceView& view, int64_t kv_heads, const AttentionRule& rule) {
    kernels::AttentionForward run;
    run.q = q_THC.const_data_ptr();
    run.q_stride = q_THC.stride(0);
    run.query_begin = view.offsets_device.const_data_ptr<int32_t>();
    run.context = view.context_B.const_data_ptr<int32_t>();
    run.out = out.mutable_data_ptr();
    run.tokens = q_THC.size(0);
    run.sequences = view.num_sequences();
    run.heads = q_THC.size(1);
    run.kv_heads = kv_heads;
    run.head_dim = q_THC.size(2);
    run.value_dim = out.size(2);
    run.scale = static_cast<float>(rule.scale);
    run.rule = Rule(rule);
    return run;
  }
};

void WritePages(const at::Tensor& x_TKC, at::Tensor pages, const PageMap& map) {
  const bool fp8 = pages.scalar_type() == at::kFloat8_e4m3fn;  // has no index_copy_ of its own
  at::Tensor rows = pages.view({-1, x_TKC.size(1), x_TKC.size(2)});
  if (fp8) rows = rows.view(at::kByte);
  rows.index_copy_(0, map.slot_T, fp8 ? ToFp8(x_TKC).view(at::kByte) : x_TKC);
}

// Values are `value` [pages, page_tokens, K, >= value_dim].
at::Tensor PagedCpu(const at::Tensor& q_THC, const at::Tensor& key, const at::Tensor& value,
                    int64_t value_dim, const SequenceView& view, const AttentionRule& rule) {
  const PageMap& map = *view.pages;
  at::Tensor q = q_THC.contiguous();
  at::Tensor out = at::empty({q.size(0), q.size(1), value_dim}, q.options());
  std::vector<int64_t> row_T(static_cast<size_t>(q.size(0)));
  for (int64_t b = 0; b < view.num_sequences(); ++b) {
    std::fill(row_T.begin() + view.offsets[b], row_T.begin() + view.offsets[b + 1], b);
  }
  PagedAttentionShape shape{.heads = q.size(1),
                            .kv_heads = key.size(2),
                            .head_dim = q.size(2),
                            .value_dim = value_dim,
                            .value_stride = value.size(3),
                            .page_tokens = map.page_tokens,
                            .pages_per_row = map.pages_BP.size(1),
                            .scale = rule.scale,
                            .softcap = rule.softcap,
                            .window = rule.window};
  at::Tensor sinks;
  if (rule.alibi_H.defined()) shape.alibi = rule.alibi_H.const_data_ptr<float>();
  if (rule.sinks_H.defined()) {
    sinks = rule.sinks_H.value.contiguous();
    shape.sinks = sinks.const_data_ptr<float>();
  }
  PagedAttentionCpu(q.const_data_ptr<float>(), key.const_data_ptr<float>(),
                    value.const_data_ptr<float>(), map.pages_BP.const_data_ptr<int32_t>(),
                    row_T.data(), view.position_T.const_data_ptr<int64_t>(), q.size(0), shape,
                    out.mutable_data_ptr<float>());
  return out;
}

// What the kernels do not take goes the plain way: fp32, and head dims without a kernel.
bool KernelsTake(const at::Tensor& q_THC, int64_t value_dim) {
  return RunsKernels(q_THC) && value_dim == q_THC.size(2) && kernels::AttentionTakes(q_THC.size(2));
}

// The same of packed keys and values, which may differ in width, as those that latent attention expands do.
bool KernelsTakePacked(const at::Tensor& q_THC, int64_t value_dim, const AttentionRule& rule) {
  return KernelsTake(q_THC, value_dim) ||
         (RunsKernels(q_THC) && kernels::AttentionTakesWidths(q_THC.size(2), value_dim, CudaAttention::Rule(rule)));
}

// Where they take no such widths, the one at which they take both with zeros behind; else 0.
int64_t WidthForKernels(const at::Tensor& q_THC, const at::Tensor& v_TKC) {
  const int64_t key_dim = q_THC.size(2), value_dim = v_TKC.size(2);
  return RunsKernels(q_THC) && key_dim != value_dim ? kernels::AttentionDimAbove(std::max(key_dim, value_dim)) : 0;
}

// First the sequences that decode one token, then those that prefill.
at::Tensor PagedByKernels(const at::Tensor& q_THC, const SequenceView& view, int layer,
                          const AttentionRule& rule) {
  const PageMap& map = *view.pages;
  const KvPages& pages = (*map.layers)[layer];
  at::Tensor q = CudaAttention::Dense(q_THC), out = at::empty(q.sizes(), q.options());
  kernels::AttentionForward run =
      CudaAttention::Shape(q, out, view, pages.key.size(2), rule);
  run.keys.key = pages.key.const_data_ptr();
  run.keys.value = pages.value.const_data_ptr();
  run.keys.key_stride = run.keys.value_stride = pages.key.stride(1);
  run.keys.fp8 = pages.key.scalar_type() == at::kFloat8_e4m3fn;
  run.keys.pages = map.pages_BP.const_data_ptr<int32_t>();
  run.keys.pages_per_sequence = static_cast<int32_t>(map.pages_BP.size(1));
  run.keys.page_shift = std::countr_zero(static_cast<uint32_t>(map.page_tokens));
  const int64_t single = map.single_queries;
  if (single > 0) {
    kernels::AttentionForward decode = run;
    decode.tokens = decode.sequences = single;
    at::Tensor scratch = map.decode_scratch;
    Launched(kernels::AttendDecode(decode, map.most_chunks, scratch.mutable_data_ptr(), Stream()));
  }
  run.sequences -= single;
  if (run.sequences == 0) return out;
  run.query_begin += single;
  run.context += single;
  run.keys.pages += single * run.keys.pages_per_sequence;
  CudaAttention::Prefill(run, view.longest, q);
  return out;
}

}  // namespace

bool KernelsReadFp8(const at::Tensor& like, int64_t head_dim, const AttentionRule& rule) {
  return RunsKernels(like) && rule.plain() && kernels::AttentionTakes(head_dim);
}

at::Tensor Attention(const at::Tensor& q_THC, const at::Tensor& k_TKC, const at::Tensor& v_TKC,
                     const SequenceView& view, int layer, const AttentionRule& rule) {
  if (view.pages != nullptr) {
    const KvPages& pages = (*view.pages->layers)[layer];
    if (k_TKC.defined()) {
      WritePages(k_TKC, pages.key, *view.pages);
      WritePages(v_TKC, pages.value, *view.pages);
    }
    const int64_t value_dim = pages.value.size(3);
    if (!q_THC.is_cuda()) return PagedCpu(q_THC, pages.key, pages.value, value_dim, view, rule);
    const auto page_tokens = static_cast<uint32_t>(view.pages->page_tokens);
    const bool pages_fit = page_tokens >= 16 && std::has_single_bit(page_tokens);
    if (KernelsTake(q_THC, value_dim) && pages_fit) return PagedByKernels(q_THC, view, layer, rule);
    return AttendPages(q_THC, pages.key.to(q_THC.scalar_type()), pages.value.to(q_THC.scalar_type()), view, rule);
  }
  const bool cuda = q_THC.is_cuda();
  bool fused = cuda ? KernelsTakePacked(q_THC, v_TKC.size(2), rule) : rule.plain() && v_TKC.size(2) == q_THC.size(2);
  if (const int64_t width = fused ? 0 : WidthForKernels(q_THC, v_TKC); width > 0) {
    return Attention(Widened(q_THC, width), Widened(k_TKC, width), Widened(v_TKC, width), view, layer, rule)
        .narrow(2, 0, v_TKC.size(2));
  }
  if (view.shared != nullptr) {
    // Behind a prompt's keys the backward knows no distances.
    fused = fused && cuda && (!Records(q_THC) || (rule.window == 0 && !rule.alibi_H.defined()));
    if (!fused) {
      const SharedPrompts& shared = *view.shared;
      auto copied = [&](const at::Tensor& x) {
        return Rows(x.flatten(1), shared.source_E).view({-1, x.size(1), x.size(2)});
      };
      return Attention(copied(q_THC), copied(k_TKC), copied(v_TKC), *shared.copies, layer, rule)
          .index_select(0, shared.own_T);
    }
  }
  if (!fused) return AttendPacked(q_THC, k_TKC, v_TKC, view, rule);
  if (!Records(q_THC)) {
    return cuda ? CudaAttention::forward(nullptr, q_THC, k_TKC, v_TKC, view, rule)
                : CpuAttention::forward(nullptr, q_THC, k_TKC, v_TKC, view, rule.scale);
  }
  return cuda ? CudaAttention::apply(q_THC, k_TKC, v_TKC, view, rule)
              : CpuAttention::apply(q_THC, k_TKC, v_TKC, view, rule.scale);
}

at::Tensor LatentAttention(const at::Tensor& q_THC, const at::Tensor& key_T1C, int64_t value_dim,
                           const SequenceView& view, int layer, const AttentionRule& rule) {
  const PageMap& map = *view.pages;
  const KvPages& pages = (*map.layers)[layer];
  const at::Tensor& key = pages.key;
  WritePages(key_T1C, key, map);
  if (!q_THC.is_cuda()) return PagedCpu(q_THC, key, key, value_dim, view, rule);
  auto plain = [&](const at::Tensor& q, const SequenceView& of_q) {
    return AttendPages(q, key, key.narrow(3, 0, value_dim), of_q, rule);
  };
  const int64_t single = map.single_queries, rest = q_THC.size(0) - single;
  if (single == 0 || value_dim != kernels::kLatentValueDim || !rule.plain() || !DecodesLatents(map, pages)) {
    return plain(q_THC, view);
  }
  at::Tensor decoded = DecodeLatents(q_THC.narrow(0, 0, single).contiguous(), view, layer, rule.scale);
  if (rest == 0) return decoded;
  PageMap map_of_rest{.page_tokens = map.page_tokens, .pages_BP = map.pages_BP.slice(0, single)};
  SequenceView of_rest{.position_T = view.position_T.slice(0, single), .longest = view.longest, .pages = &map_of_rest};
  for (auto b = static_cast<size_t>(single); b < view.offsets.size(); ++b) of_rest.offsets.push_back(view.offsets[b] - single);
  return at::cat({decoded, plain(q_THC.slice(0, single), of_rest)}, 0);
}

at::Tensor AttentionReference(const at::Tensor& q_THC, const at::Tensor& k_TKC,
                              const at::Tensor& v_TKC, const SequenceView& view,
                              const AttentionRule& rule) {
  return AttendPacked(q_THC, k_TKC, v_TKC, view, rule);
}

}  // namespace rein::nn

#include "common/nn/latent_projection.h"

#include <ATen/ATen.h>

#include "common/nn/functions.h"
#include "common/nn/norm.h"

namespace rein::nn {
namespace {

constexpr double kEpsilon = 1e-6;  // of the inner norms, whatever the model's is

}  // namespace

at::Tensor AttendLatent(const at::Tensor& x_TD, const LatentShape& s, const LatentWeights& w,
                        const Rotary& rotary, const SequenceView& view, int layer,
                        const AttentionRule& rule) {
  const int64_t tokens = x_TD.size(0), heads = s.heads;
  at::Tensor q_in = x_TD;
  if (w.q_down.defined()) q_in = RmsNorm(Projection(x_TD, w.q_down, {}), w.q_norm, kEpsilon);
  at::Tensor q = Projection(q_in, w.q_up, {}).view({tokens, heads, s.plain_dim + s.rotary_dim});
  at::Tensor q_plain = q.narrow(2, 0, s.plain_dim);
  at::Tensor q_turned = Rotate(q.narrow(2, s.plain_dim, s.rotary_dim), rotary);
  at::Tensor down = Projection(x_TD, w.kv_down, {});
  at::Tensor latent = RmsNorm(down.narrow(1, 0, s.latent_dim).contiguous(), w.latent_norm, kEpsilon);
  at::Tensor k_turned = Rotate(down.narrow(1, s.latent_dim, s.rotary_dim).unsqueeze(1), rotary);

  if (view.pages == nullptr) {
    at::Tensor kv = Projection(latent, w.kv_up, {}).view({tokens, heads, s.plain_dim + s.value_dim});
    at::Tensor k = at::cat({kv.narrow(2, 0, s.plain_dim), k_turned.expand({-1, heads, -1})}, 2);
    return Attention(at::cat({q_plain, q_turned}, 2), k, kv.narrow(2, s.plain_dim, s.value_dim), view,
                     layer, rule)
        .flatten(1);
  }
  at::Tensor up = Merged(w.kv_up).view({heads, s.plain_dim + s.value_dim, s.latent_dim});
  at::Tensor key_up = up.narrow(1, 0, s.plain_dim);                  // [H, N, L]
  at::Tensor value_up = up.narrow(1, s.plain_dim, s.value_dim);      // [H, W, L]
  at::Tensor q_latent = q_plain.transpose(0, 1).matmul(key_up).transpose(0, 1);  // [T, H, L]
  at::Tensor out = LatentAttention(at::cat({q_latent, q_turned}, 2),
                                   at::cat({latent.unsqueeze(1), k_turned}, 2), s.latent_dim, view,
                                   layer, rule);
  return out.transpose(0, 1).matmul(value_up.transpose(1, 2)).transpose(0, 1).reshape({tokens, -1});
}

}  // namespace rein::nn

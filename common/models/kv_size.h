// What keys, values and recurrent states of a decoder take.

#pragma once

#include <cstdint>

#include "common/models/decoder_spec.h"

namespace rein::models {

// Of a page of so many tokens, in all layers. A recurrent layer keeps one state (fp32) for a page. `choices`: with the
// experts of each token.
inline int64_t KvBytesPerPage(const DecoderSpec& spec, int64_t page_tokens, int64_t element_bytes, bool choices = false) {
  const LatentSpec& latent = spec.latent;
  const nn::DeltaShape& delta = spec.delta;
  const int64_t width = latent.latent_dim > 0 ? latent.latent_dim + latent.rotary_dim
                                              : 2 * spec.num_kv_heads * spec.head_dim;
  const int64_t state =
      delta.value_heads * delta.key_dim * delta.value_dim + delta.mixed_dim() * (delta.taps - 1);
  int64_t bytes = 0;
  for (int64_t n = 0; n < spec.num_layers; ++n) {
    bytes += spec.layer(n).recurrent ? state * static_cast<int64_t>(sizeof(float))
                                     : page_tokens * width * element_bytes;
    if (choices && spec.layer(n).sparse) bytes += page_tokens * spec.experts.routing.chosen * static_cast<int64_t>(sizeof(int16_t));
  }
  return bytes;
}

}  // namespace rein::models

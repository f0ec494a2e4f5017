// The kernel of common/kernels/latent_decode.h over pages; for attention.cc and sequence_view.cc.
//
// B sequences, H heads, C dims of a key.

#pragma once

#include <ATen/core/Tensor.h>

#include "common/nn/sequence_view.h"

namespace rein::nn {

// Whether it reads these pages of latents: bf16, and widths that it takes, on a Hopper.
bool DecodesLatents(const PageMap& map, const KvPages& pages);

// PlanDecode() over such pages.
void PlanLatents(PageMap& map, const at::Tensor& context_B, int64_t heads);

// The leading sequences of a view, which have one query each: contiguous q_BHC [B, H, C] -> [B, H, value dims].
at::Tensor DecodeLatents(const at::Tensor& q_BHC, const SequenceView& view, int layer, double scale);

}  // namespace rein::nn

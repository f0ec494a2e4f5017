#include "common/models/row_bits.h"

#include <algorithm>
#include <cstdint>
#include <set>
#include <string>

#include "common/kernels/expert_rows.h"

namespace rein::models {

namespace {

const std::set<int64_t>& HeadDims() {  // that the attention kernels take
  static const auto& dims = *new std::set<int64_t>{32, 64, 96, 128, 256};
  return dims;
}

// What nn/grouped_experts.h runs, and no gate of the shared expert, which is one column wide.
bool ExpertsKeepRowBits(const DecoderSpec& spec) {
  const ExpertSpec& experts = spec.experts;
  auto multiple = [](int64_t n) { return n % 8 == 0; };
  return !experts.shared_gate && multiple(experts.routing.experts) && multiple(experts.ffn_dim) && multiple(spec.model_dim) &&
         experts.routing.experts <= kernels::kMostTopColumns;
}

// Experts with updates run one by one, and a rank that is no multiple of 8 by LibTorch.
bool UpdatesKeepRowBits(const DecoderSpec& spec) {
  return std::all_of(spec.lora.begin(), spec.lora.end(), [](const auto& update) {
    return update.second.rank % 8 == 0 && update.first.find(".experts.") == std::string::npos;
  });
}

}  // namespace

bool KeepsRowBits(const DecoderSpec& spec) {
  const bool plain_layers = std::none_of(spec.layers.begin(), spec.layers.end(), [&](const LayerSpec& layer) {
    return (layer.sparse && !ExpertsKeepRowBits(spec)) || layer.recurrent || layer.rope < 0;
  });
  const bool plain_norms = spec.norm == nn::NormKind::kRms && spec.norm_weights && !spec.norm_bias &&
                           spec.block.pre_norm && !spec.block.post_norm && !spec.block.parallel &&
                           !spec.embedding_norm && spec.qk_norm != QkNorm::kWhole;
  const bool plain_attention = spec.latent.latent_dim == 0 && spec.alibi == Alibi::kNone && !spec.sinks &&
                               !spec.output_gate && spec.score_softcap == 0 && !spec.rope_interleaved &&
                               (spec.rotary_dim == 0 || spec.rotary_dim == spec.head_dim) &&
                               spec.position_rows == 0 && HeadDims().contains(spec.head_dim);
  const bool plain_head = spec.vocab_size % 8 == 0 && spec.logit_softcap == 0 && !spec.normalised_head && !spec.scalar_head;
  return plain_layers && UpdatesKeepRowBits(spec) && plain_norms && plain_attention && plain_head && spec.gated &&
         spec.gate.activation == nn::Activation::kSilu && spec.gate.limit == 0;
}

}  // namespace rein::models

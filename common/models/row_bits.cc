#include "common/models/row_bits.h"

#include <algorithm>
#include <cstdint>
#include <string>

#include "common/kernels/attention.h"
#include "common/kernels/expert_rows.h"
#include "common/kernels/norm.h"

namespace rein::models {

namespace {

// What nn/grouped_experts.h runs.
bool ExpertsKeepRowBits(const DecoderSpec& spec) {
  const ExpertSpec& experts = spec.experts;
  auto multiple = [](int64_t n) { return n % 8 == 0; };
  return multiple(experts.routing.experts) && multiple(experts.ffn_dim) && multiple(experts.shared_ffn_dim) && multiple(spec.model_dim) &&
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
  const bool layers = std::none_of(spec.layers.begin(), spec.layers.end(), [&](const LayerSpec& layer) {
    return (layer.sparse && !ExpertsKeepRowBits(spec)) || layer.recurrent;
  });
  const bool whole = spec.qk_norm == QkNorm::kWhole;
  const bool norms = kernels::NormTakes(spec.model_dim) && (!whole || (kernels::NormTakes(spec.num_heads * spec.head_dim) &&
                                                                       kernels::NormTakes(spec.num_kv_heads * spec.head_dim)));
  const bool attention = spec.latent.latent_dim == 0 && kernels::AttentionTakes(spec.head_dim);
  const bool products = spec.model_dim % 8 == 0 && spec.ffn_dim % 8 == 0 && spec.state_dim() % 8 == 0;
  return layers && norms && attention && products && UpdatesKeepRowBits(spec) && !spec.scalar_head;
}

}  // namespace rein::models

#include "common/nn/latent_decode.h"

#include <ATen/ATen.h>

#include <bit>

#include "common/kernels/attention.h"
#include "common/kernels/latent_decode.h"
#include "common/nn/launched.h"

namespace rein::nn {
namespace {

kernels::LatentPlan Plan(const PageMap& map, const at::Tensor& context_B, int64_t heads) {
  static_assert(kernels::kLatentChunk >= kernels::kKeyChunk);  // as many of them are enough
  return {context_B.const_data_ptr<int32_t>(), map.single_queries, heads, map.most_chunks};
}

}  // namespace

bool DecodesLatents(const PageMap& map, const KvPages& pages) {
  const auto page_tokens = static_cast<uint32_t>(map.page_tokens);
  return RunsKernels(pages.key) && page_tokens >= 16 && std::has_single_bit(page_tokens) && pages.key.size(2) == 1 &&
         kernels::LatentDecodeTakes(pages.key.size(3), kernels::kLatentValueDim);
}

void PlanLatents(PageMap& map, const at::Tensor& context_B, int64_t heads) {
  const kernels::LatentPlan plan = Plan(map, context_B, heads);
  Reserve(kernels::LatentScratchBytes(plan), context_B, map.decode_scratch);
  Launched(kernels::PlanLatentDecode(plan, map.decode_scratch.mutable_data_ptr(), Stream()));
}

at::Tensor DecodeLatents(const at::Tensor& q_BHC, const SequenceView& view, int layer, double scale) {
  const PageMap& map = *view.pages;
  const KvPages& pages = (*map.layers)[layer];
  at::Tensor out = at::empty({q_BHC.size(0), q_BHC.size(1), kernels::kLatentValueDim}, q_BHC.options());
  kernels::LatentDecode run;
  run.q = q_BHC.const_data_ptr();
  run.keys = pages.key.const_data_ptr();
  run.pages = pages.key.size(0);
  run.page_shift = std::countr_zero(static_cast<uint32_t>(map.page_tokens));
  run.pages_of = map.pages_BP.const_data_ptr<int32_t>();
  run.pages_per_sequence = static_cast<int32_t>(map.pages_BP.size(1));
  run.out = out.mutable_data_ptr();
  run.scale = static_cast<float>(scale);
  at::Tensor scratch = map.decode_scratch;
  Launched(kernels::DecodeLatent(run, Plan(map, view.context_B, q_BHC.size(1)), scratch.mutable_data_ptr(), Stream()));
  return out;
}

}  // namespace rein::nn

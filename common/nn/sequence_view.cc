#include "common/nn/sequence_view.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <numeric>

#include "common/kernels/attention.h"
#include "common/nn/launched.h"

namespace rein::nn {

SequenceView PackedSequences(const std::vector<int64_t>& lengths, at::Device device) {
  SequenceView view;
  view.offsets.push_back(0);
  for (int64_t length : lengths) {
    view.offsets.push_back(view.offsets.back() + length);
    view.longest = std::max(view.longest, length);
  }
  std::vector<int64_t> positions(static_cast<size_t>(view.offsets.back()));
  for (size_t b = 0; b < lengths.size(); ++b) {
    std::iota(positions.begin() + view.offsets[b], positions.begin() + view.offsets[b + 1], 0);
  }
  view.position_T = at::tensor(positions, at::kLong).to(device);
  view.offsets_device = at::tensor(view.offsets, at::kLong).to(at::kInt).to(device);
  view.context_B = at::tensor(lengths, at::kLong).to(at::kInt).to(device);
  return view;
}

void PlanDecode(PageMap& map, const at::Tensor& context_B, int64_t heads, int64_t head_dim) {
  if (map.single_queries == 0 || !kernels::AttentionTakes(head_dim)) return;
  const int64_t bytes =
      kernels::DecodeScratchBytes(map.most_chunks, map.single_queries, heads, head_dim);
  if (!map.decode_scratch.defined() || map.decode_scratch.numel() < bytes) {
    map.decode_scratch = at::empty({bytes}, context_B.options().dtype(at::kByte));
  }
  kernels::DecodePlan plan;
  plan.context = context_B.const_data_ptr<int32_t>();
  if (map.shared_B.defined()) plan.shared = map.shared_B.const_data_ptr<int32_t>();
  plan.sequences = map.single_queries;
  plan.heads = heads;
  plan.kv_heads = map.layers->front().key.size(2);
  plan.most_chunks = map.most_chunks;
  Launched(kernels::PlanDecode(plan, map.decode_scratch.mutable_data_ptr(), Stream()));
}

}  // namespace rein::nn

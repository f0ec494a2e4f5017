#include "common/nn/sequence_view.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <numeric>

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
  return view;
}

void PlanGather(PageMap& map, at::Device device) {
  std::vector<int64_t> ends{0};
  for (int64_t context : map.context_B) {
    ends.push_back(ends.back() + context);
    map.longest_context = std::max(map.longest_context, context);
  }
  at::Tensor context_B = at::tensor(map.context_B, at::kLong).to(device);
  at::Tensor begin_B = at::tensor(ends, at::kLong).to(device);
  at::Tensor row = at::repeat_interleave(context_B, std::optional<int64_t>(ends.back()));
  at::Tensor place = at::arange(ends.back(), context_B.options()) - begin_B.index_select(0, row);
  at::Tensor page = map.pages_BP.to(device).index({row, place.floor_divide(map.page_tokens)});
  map.context_slot_N = page.to(at::kLong) * map.page_tokens + place.remainder(map.page_tokens);
  map.context_ends = begin_B.to(at::kInt);
}

}  // namespace rein::nn

#include "common/nn/sequence_view.h"

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

}  // namespace rein::nn

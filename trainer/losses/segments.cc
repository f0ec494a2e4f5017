#include "trainer/losses/segments.h"

#include <ATen/ATen.h>

#include "common/tensor/transfer.h"

namespace rein::trainer {

Segments Segments::Of(const std::vector<int64_t>& lengths, at::Device device) {
  at::Tensor length_S = at::tensor(lengths, at::kLong);
  at::Tensor row_T = at::arange(length_S.numel()).repeat_interleave(length_S);
  return {tensor::ToDevice(length_S, device), tensor::ToDevice(row_T, device)};
}

at::Tensor SumOf(const at::Tensor& x_T, const Segments& segments) {
  return at::segment_reduce(x_T.contiguous(), "sum", segments.length_S, {}, {}, 0, /*unsafe=*/true,
                            0);
}

at::Tensor MeanOf(const at::Tensor& x_T, const Segments& segments) {
  return SumOf(x_T, segments) / segments.length_S.clamp_min(1);
}

at::Tensor SpreadOver(const at::Tensor& x_S, const Segments& segments) {
  return x_S.index_select(0, segments.row_T);
}

}  // namespace rein::trainer

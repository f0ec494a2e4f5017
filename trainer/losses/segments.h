// Which of the packed tokens belong to one sequence, and sums over them.
//
// T target tokens, packed one sequence after the other; S sequences.

#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

namespace rein::trainer {

struct Segments {
  at::Tensor length_S;  // int64: targets of each sequence; may be 0
  at::Tensor row_T;     // int64: the sequence of each token

  static Segments Of(const std::vector<int64_t>& lengths, at::Device device);
};

// [S], summed in a fixed order; 0 for a sequence without targets. Differentiable.
at::Tensor SumOf(const at::Tensor& x_T, const Segments& segments);
// [S]; 0 for a sequence without targets. Differentiable.
at::Tensor MeanOf(const at::Tensor& x_T, const Segments& segments);
// [T]: each token gets the value of its sequence.
at::Tensor SpreadOver(const at::Tensor& x_S, const Segments& segments);

}  // namespace rein::trainer

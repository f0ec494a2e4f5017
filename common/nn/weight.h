// Weight is a parameter as a function sees it: a view of the compute arena, and of the gradient arena
// when it is trained.

#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "common/nn/quantised_matrix.h"

namespace rein::nn {

struct LowRankUpdate;

struct Weight {
  at::Tensor value;  // compute dtype; undefined where it is quantised
  at::Tensor grad;   // fp32, same shape, accumulated into by backward passes; undefined: frozen, or inference
  std::vector<LowRankUpdate> updates = {};  // LoRA; only Projection(), and what is built of it, reads them

  // Read by Projection() too, and by experts.
  std::shared_ptr<const QuantisedMatrix> quantised = nullptr;

  bool defined() const { return value.defined() || quantised != nullptr; }
  int64_t size(int64_t dim) const;
  // The value; of a quantised one its numbers in the compute dtype, made anew.
  at::Tensor Dense() const;
};

// What LoRA (arXiv 2106.09685) adds to rows [first_row, first_row + rows) of a matrix: scale * up down.
//
// It is never merged into the matrix while it is trained: trainer, generator and reference all compute
// x W^T + scale (x down^T) up^T by the same function, so that a token's log-prob is the same in each, and a bf16 matrix
// does not round updates away that are smaller than its last bit.
struct LowRankUpdate {
  int64_t first_row = 0, rows = 0;  // of the matrix, all leading dimensions as one
  Weight down;                      // "A": [R, D]
  Weight up;                        // "B": [rows, R]
  double scale = 1;
};

// The matrix with its updates added, without a gradient, for formulas that need its entries.
at::Tensor Merged(const Weight& weight);

}  // namespace rein::nn

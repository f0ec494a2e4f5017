// Where parameters stand in a checkpoint: tensors of their own, or parts of fused ones.

#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"

namespace rein::models {

// A parameter as a strided view of a tensor of the file.
struct TensorPlace {
  std::string tensor;
  std::vector<int64_t> shape;  // of the whole tensor; empty: the parameter's own, and all of it
  int64_t offset = 0;          // of the parameter's first element
  std::vector<int64_t> sizes, strides;  // the parameter, seen with these sizes
};

TensorPlace WholeTensor(std::string tensor);

// Rows [first, first + rows) of [total, columns]; columns 0: of a vector.
TensorPlace RowsOf(std::string tensor, int64_t total, int64_t columns, int64_t first, int64_t rows);

// The tensor has `groups` blocks of `per_group` rows; the parameter is rows [first, first + rows) of each block.
TensorPlace GroupedRowsOf(std::string tensor, int64_t groups, int64_t per_group, int64_t columns,
                          int64_t first, int64_t rows);

// A parameter [rows, columns] whose tensor is [columns, total]: columns [first, first + rows), transposed.
TensorPlace TransposedOf(std::string tensor, int64_t columns, int64_t total, int64_t first,
                         int64_t rows);

// Pairs of name parts, ours and theirs; '#' stands for a number that is kept. The first pair whose left side
// opens the parameter's name is used; what follows it stays. A name that no pair opens is kept.
//   {{"layers.#.attention.q.", "model.layers.#.self_attn.q_proj."}}
using NameMap = std::vector<std::pair<std::string, std::string>>;
std::string MappedName(const NameMap& map, absl::string_view parameter);

}  // namespace rein::models

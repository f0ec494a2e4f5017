// y = x W^T + bias for few rows (a step of decoding) on a Hopper, with the bits of the plain kernel: one chain over the inner
// dimension, k16 by k16. What bounds it is the chain, so that it runs on the products of warps, which take half as long to
// follow each other as those of warpgroups; and reading, so that the copy engine fetches ahead as far as shared memory goes.

#pragma once

#include <vector>

#include "common/kernels/projection.h"

namespace rein::kernels {

// Blocks of y, each computed by itself.
struct FewRowsCut {
  int columns, rows;
};

// The cuts that are worth trying for this product on the current device; none where the kernel does not take it.
std::vector<FewRowsCut> FewRowsCuts(const Projection& run);

absl::Status RunFewRowsProjection(const Projection& run, const FewRowsCut& cut, void* stream);

}  // namespace rein::kernels

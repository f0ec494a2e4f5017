// The sum of rows of fp32 in an order that depends on their number alone: what many blocks left of a weight's
// gradient, added up.

#pragma once

#include <cstdint>

namespace rein::kernels {

// rows [count, columns], device memory of the current device. Sums of columns below `split` are added to low
// [split], the others to high [columns - split]; either may be null. Launches on `stream`, a cudaStream_t.
void AddRows(const float* rows, int64_t count, int64_t columns, int64_t split, float* low, float* high,
             void* stream);

}  // namespace rein::kernels

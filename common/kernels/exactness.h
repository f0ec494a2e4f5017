// Whether kernels of this process keep a row's bits whatever stands beside it, and equal inputs' gradients equal. True
// unless a job gives it up for speed (model.exact: false): then cuBLASLt may split sums, and cuDNN's backward may add in any order.

#pragma once

namespace rein::kernels {

// Products that were captured into a graph stay as they are. Any thread.
void KeepBits(bool keep);
bool KeepsBits();

}  // namespace rein::kernels

// y = x W^T + bias in bf16 with fp32 sums, where a row of y has the same bits whatever the number of rows:
// the promise that lets the generator's log-probs be the trainer's.
//
// The sum over the inner dimension is one chain in order, k16 by k16. cuBLASLt does that too when its
// reduction across blocks is switched off, for most of its algorithms. The first call of a shape (N, K, bias,
// and rows up to the next power of two) tries cuBLASLt's candidates on its own input, drops every one
// that differs by a bit from the plain kernel below on the rows that are compared, and keeps the fastest,
// with weights that are in no cache. For few rows what cuBLASLt proposes for more is tried too: it is often faster; so are,
// on a Hopper, the cuts of few_rows_projection.h.
// A shape whose candidates all differ runs on the plain one.
// Never call a shape for the first time inside a CUDA graph capture.

#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"

namespace rein::kernels {

constexpr bool ProjectionTakes(int64_t columns, int64_t inner) {
  return columns % 8 == 0 && inner % 8 == 0;
}

// Pointers are device memory of the current device, 16-byte aligned, row-major.
struct Projection {
  const void* x = nullptr;       // bf16 [M, K]
  const void* weight = nullptr;  // bf16 [N, K]
  const void* bias = nullptr;    // bf16 [N] or null
  void* y = nullptr;             // bf16 [M, N]
  int64_t rows = 0, columns = 0, inner = 0;
};

// INTERNAL when CUDA or cuBLASLt refuses, UNIMPLEMENTED in a build without CUDA. Thread-safe.
absl::Status RunProjection(const Projection& run, void* stream);

// The plain kernel: mma.sync, one chain. Any M; meant for at most 64 rows at a time.
absl::Status RunPlainProjection(const Projection& run, void* stream);
// The same with y in fp32.
absl::Status RunPlainProjectionToFloat(const Projection& run, void* stream);

// What was chosen so far, one line for each shape: "N K rows<=R: algorithm 66 tile 20 ... 7 of 9 agree, 12.3 us".
std::vector<std::string> ChosenProjections();

}  // namespace rein::kernels

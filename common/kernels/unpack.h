// Frozen matrices in 8 or 4 bits, to the format that products take; see nn/quantised_matrix.h.

#pragma once

#include <cstdint>

#include "absl/status/status.h"

namespace rein::kernels {

// NormalFloat with 4 bits: quantiles of a normal distribution, scaled to [-1, 1] (arXiv 2305.14314, appendix E).
inline constexpr float kNf4Table[16] = {-1.0f, -0.6961928009986877f, -0.5250730514526367f, -0.39491748809814453f,
                                        -0.28444138169288635f, -0.18477343022823334f, -0.09105003625154495f, 0.0f,
                                        0.07958029955625534f, 0.16093020141124725f, 0.24611230194568634f, 0.33791524171829224f,
                                        0.44070982933044434f, 0.5626170039176941f, 0.7229568362236023f, 1.0f};

// Pointers are device memory of the current device, 8-byte aligned.
struct Unpacking {
  const void* code = nullptr;    // int8 [elements], or nf4: two in a byte, the first in the high half
  const float* scale = nullptr;  // of each row of `columns` numbers, or nf4: of each 64 numbers
  void* out = nullptr;           // bf16 or fp32 [elements]
  int64_t elements = 0, columns = 0;
  bool nf4 = false;     // a multiple of 64 elements
  bool narrow = false;  // bf16
};

// Each number is code times scale in fp32, rounded to nearest. INTERNAL when the launch was refused, UNIMPLEMENTED in a
// build without CUDA.
absl::Status Unpack(const Unpacking& run, void* stream);

}  // namespace rein::kernels

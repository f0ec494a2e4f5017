// silu(gate) * up (SwiGLU, arXiv 2002.05202), bf16 on the GPU, T rows of [gate | up], F columns each.
//
//   y = bf16(bf16(gate / (1 + exp(-gate))) * up)

#pragma once

#include <cstdint>

#include "absl/status/status.h"

namespace rein::kernels {

// gate_up bf16 [T, 2F] -> y bf16 [T, F]; F a multiple of 8, pointers 16-byte aligned. Returns after
// the launch; INTERNAL when it was refused, UNIMPLEMENTED in a build without CUDA.
absl::Status GatedSilu(const void* gate_up, void* y, int64_t rows, int64_t columns, void* stream);

// dy bf16 [T, F] -> dgate_up bf16 [T, 2F].
absl::Status GatedSiluGradient(const void* gate_up, const void* dy, void* dgate_up, int64_t rows,
                               int64_t columns, void* stream);

}  // namespace rein::kernels

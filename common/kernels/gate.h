// activation(gate) * up (arXiv 2002.05202), bf16 on the GPU, T rows of [gate | up], F columns each.
//
//   y = bf16(bf16(activation(gate)) * up)
//
// With a limit (gpt-oss): y = bf16((up' + 1) gate' sigmoid(slope gate')), gate' = min(gate, limit), up' = clamp(up, -limit,
// limit); the activation is not used.

#pragma once

#include <cstdint>

#include "absl/status/status.h"

namespace rein::kernels {

enum class GateActivation { kSilu, kGelu, kGeluTanh, kRelu };

struct GateRule {
  GateActivation activation = GateActivation::kSilu;
  float limit = 0;  // above 0: clamped
  float slope = 1;
};

// gate_up bf16 [T, 2F] -> y bf16 [T, F]; F a multiple of 8, pointers 16-byte aligned. Returns after
// the launch; INTERNAL when it was refused, UNIMPLEMENTED in a build without CUDA.
absl::Status RunGate(const GateRule& rule, const void* gate_up, void* y, int64_t rows, int64_t columns, void* stream);

// dy bf16 [T, F] -> dgate_up bf16 [T, 2F].
absl::Status RunGateGradient(const GateRule& rule, const void* gate_up, const void* dy, void* dgate_up, int64_t rows,
                             int64_t columns, void* stream);

}  // namespace rein::kernels

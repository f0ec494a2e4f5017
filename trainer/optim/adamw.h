// AdamW (arXiv 1711.05101) over a slice of the flat arenas.
//
//   m = b1 m + (1 - b1) g,  v = b2 v + (1 - b2) g^2
//   w = w (1 - lr wd) - lr / (1 - b1^n) * m / (sqrt(v) / sqrt(1 - b2^n) + epsilon)
//
// The result depends on nothing but its inputs: equal gradients give equal bits, whatever the number of
// threads or ranks, and wherever the state is kept.

#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>

#include "common/kernels/host_staging.h"
#include "common/weights/registry.h"

namespace rein::trainer {

struct AdamWSettings {
  double beta1 = 0.9, beta2 = 0.95, epsilon = 1e-8, weight_decay = 0;
  uint64_t seed = 0;  // of the rounding of bf16 moments
};

// Flat tensors of one length: the slice [slice.begin, slice.end) of the compute arena.
struct OptimizerState {
  weights::Registry::Slice slice;
  at::Tensor master;            // fp32
  at::Tensor moment1, moment2;  // fp32, or bf16: then rounded by chance (kernels/stochastic_rounding.h)
  at::Tensor rounded;  // bf16: a step leaves the new weights here too; undefined: there is no such copy
  // Where master and moments are in pinned host memory and the gradient is on a GPU: what brings them over.
  std::shared_ptr<kernels::HostStaging> staging;
  at::Tensor staging_memory;  // 2 * kStagingBytes on the device
};
inline constexpr int64_t kStagingBytes = int64_t{192} << 20;  // of a slot

// `grad` is the same slice, `scale` multiplies it first (gradient clipping), `step` counts from 1. Parameters that are not
// trained stay as they are.
void AdamWStep(const weights::Registry& registry, const AdamWSettings& settings,
               double learning_rate, double scale, int64_t step, const at::Tensor& grad,
               OptimizerState& state);

// The plain twin, in ATen operations on whole parameters; of frozen ones the gradient must be 0.
void AdamWStepReference(const weights::Registry& registry, const AdamWSettings& settings,
                        double learning_rate, double scale, int64_t step, const at::Tensor& grad,
                        OptimizerState& state);

// sum of squares in double, in a fixed order.
double SquaredNorm(const at::Tensor& flat);

}  // namespace rein::trainer

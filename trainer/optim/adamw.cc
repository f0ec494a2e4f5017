#include "trainer/optim/adamw.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <vector>

#include "common/kernels/adamw.h"
#include "common/tensor/cuda_runtime.h"

namespace rein::trainer {
namespace {

using weights::Parameter;
using weights::Registry;

struct Coefficients {
  float beta1, beta2, one_minus_beta1, one_minus_beta2, step_size, root_correction, epsilon, scale;
};

Coefficients Prepare(const AdamWSettings& s, double learning_rate, double scale, int64_t step) {
  const double correction1 = 1 - std::pow(s.beta1, static_cast<double>(step));
  const double correction2 = 1 - std::pow(s.beta2, static_cast<double>(step));
  return {static_cast<float>(s.beta1),
          static_cast<float>(s.beta2),
          static_cast<float>(1 - s.beta1),
          static_cast<float>(1 - s.beta2),
          static_cast<float>(learning_rate / correction1),
          static_cast<float>(1 / std::sqrt(correction2)),
          static_cast<float>(s.epsilon),
          static_cast<float>(scale)};
}

__attribute__((target_clones("avx512f", "arch=haswell", "default"))) void UpdateRange(
    const Coefficients& c, float keep, const float* g, float* w, float* m, float* v, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    const float grad = g[i] * c.scale;
    m[i] = c.beta1 * m[i] + c.one_minus_beta1 * grad;
    v[i] = c.beta2 * v[i] + c.one_minus_beta2 * (grad * grad);
    const float root = std::sqrt(v[i]) * c.root_correction + c.epsilon;
    w[i] = keep * w[i] - c.step_size * (m[i] / root);
  }
}

// Calls `body(parameter, begin, length)` for the part of each parameter inside the slice, frozen ones included.
void ForEachInSlice(const Registry& registry, const Registry::Slice& slice,
                    const std::function<void(const Parameter&, int64_t, int64_t)>& body) {
  for (const Parameter& p : registry.parameters()) {
    const int64_t begin = std::max(p.offset, slice.begin);
    const int64_t end = std::min(p.offset + p.elements, slice.end);
    if (begin < end) body(p, begin - slice.begin, end - begin);
  }
}

// By the kernel, over stretches of parameters of one kind; the gaps between parameters hold zeros.
void StepOnDevice(const Registry& registry, const Coefficients& c, float decayed,
                  const at::Tensor& grad, OptimizerState& state) {
  kernels::AdamWRange range;
  range.beta1 = c.beta1;
  range.beta2 = c.beta2;
  range.one_minus_beta1 = c.one_minus_beta1;
  range.one_minus_beta2 = c.one_minus_beta2;
  range.step_size = c.step_size;
  range.root_correction = c.root_correction;
  range.epsilon = c.epsilon;
  range.scale = c.scale;
  int64_t begin = 0, end = 0;  // of the stretch in hand; empty: none
  auto run = [&] {
    range.gradient = grad.const_data_ptr<float>() + begin;
    range.weight = state.master.mutable_data_ptr<float>() + begin;
    range.moment1 = state.moment1.mutable_data_ptr<float>() + begin;
    range.moment2 = state.moment2.mutable_data_ptr<float>() + begin;
    if (state.rounded.defined()) {
      range.rounded = static_cast<char*>(state.rounded.mutable_data_ptr()) + 2 * begin;
    }
    range.size = end - begin;
    absl::Status status = kernels::RunAdamW(range, tensor::CurrentStream());
    TORCH_CHECK(status.ok(), std::string(status.message()));
  };
  ForEachInSlice(registry, state.slice, [&](const Parameter& p, int64_t first, int64_t length) {
    const float keep = p.spec.decay ? decayed : 1.0f;
    if (end > begin && (!p.spec.trained || keep != range.keep)) {
      run();
      end = begin;
    }
    if (!p.spec.trained) return;
    if (end == begin) begin = first;
    range.keep = keep;
    end = first + length;
  });
  if (end > begin) run();
}

}  // namespace

void AdamWStep(const Registry& registry, const AdamWSettings& settings, double learning_rate,
               double scale, int64_t step, const at::Tensor& grad, OptimizerState& state) {
  const Coefficients c = Prepare(settings, learning_rate, scale, step);
  const float decayed = static_cast<float>(1 - learning_rate * settings.weight_decay);
  if (!grad.is_cpu()) return StepOnDevice(registry, c, decayed, grad, state);
  const auto* g = grad.const_data_ptr<float>();
  auto* w = state.master.mutable_data_ptr<float>();
  auto* m = state.moment1.mutable_data_ptr<float>();
  auto* v = state.moment2.mutable_data_ptr<float>();
  ForEachInSlice(registry, state.slice, [&](const Parameter& p, int64_t begin, int64_t length) {
    if (!p.spec.trained) return;
    const float keep = p.spec.decay ? decayed : 1.0f;
    at::parallel_for(0, length, /*grain_size=*/1 << 16, [&](int64_t from, int64_t to) {
      UpdateRange(c, keep, g + begin + from, w + begin + from, m + begin + from, v + begin + from,
                  to - from);
    });
  });
}

void AdamWStepReference(const Registry& registry, const AdamWSettings& settings,
                        double learning_rate, double scale, int64_t step, const at::Tensor& grad,
                        OptimizerState& state) {
  const Coefficients c = Prepare(settings, learning_rate, scale, step);
  at::Tensor scaled = grad.mul(scale);
  state.moment1.mul_(settings.beta1).add_(scaled, 1 - settings.beta1);
  state.moment2.mul_(settings.beta2).addcmul_(scaled, scaled, 1 - settings.beta2);
  if (settings.weight_decay > 0) {
    ForEachInSlice(registry, state.slice, [&](const Parameter& p, int64_t begin, int64_t length) {
      if (!p.spec.decay || !p.spec.trained) return;
      state.master.narrow(0, begin, length).mul_(1 - learning_rate * settings.weight_decay);
    });
  }
  at::Tensor root = state.moment2.sqrt().mul_(c.root_correction).add_(settings.epsilon);
  state.master.addcdiv_(state.moment1, root, -static_cast<double>(c.step_size));
  if (state.rounded.defined()) state.rounded.copy_(state.master);
}

double SquaredNorm(const at::Tensor& flat) {
  if (!flat.is_cpu()) {
    at::Tensor sums = at::empty({kernels::kSquaredNormBlocks + 1}, flat.options().dtype(at::kDouble));
    auto* partial = sums.mutable_data_ptr<double>();
    absl::Status status =
        kernels::SquaredNorm(flat.const_data_ptr<float>(), flat.numel(), partial,
                             partial + kernels::kSquaredNormBlocks, tensor::CurrentStream());
    TORCH_CHECK(status.ok(), std::string(status.message()));
    return sums[kernels::kSquaredNormBlocks].item<double>();
  }
  constexpr int64_t kChunk = 1 << 16;
  const auto* x = flat.const_data_ptr<float>();
  const int64_t size = flat.numel(), chunks = (size + kChunk - 1) / kChunk;
  std::vector<double> partial(static_cast<size_t>(chunks), 0.0);
  at::parallel_for(0, chunks, 1, [&](int64_t from, int64_t to) {
    for (int64_t chunk = from; chunk < to; ++chunk) {
      double sum = 0;
      for (int64_t i = chunk * kChunk; i < std::min(size, (chunk + 1) * kChunk); ++i) {
        sum += static_cast<double>(x[i]) * x[i];
      }
      partial[static_cast<size_t>(chunk)] = sum;
    }
  });
  double total = 0;
  for (double sum : partial) total += sum;
  return total;
}

}  // namespace rein::trainer

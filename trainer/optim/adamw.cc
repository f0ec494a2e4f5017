#include "trainer/optim/adamw.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <vector>

#include "common/kernels/adamw.h"
#include "common/kernels/stochastic_rounding.h"
#include "common/random/philox.h"
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

uint64_t RoundingKey(const AdamWSettings& settings, int64_t step) {
  return random::DeriveKey(settings.seed, static_cast<uint64_t>(step));
}

bool Narrow(const OptimizerState& state) { return state.moment1.scalar_type() == at::kBFloat16; }

// The same with moments in bf16; `first`: index of the first element in the draws.
void UpdateNarrowRange(const Coefficients& c, float keep, const float* g, float* w, uint16_t* m, uint16_t* v, int64_t n,
                       uint64_t key, int64_t first) {
  for (int64_t i = 0; i < n; ++i) {
    const float grad = g[i] * c.scale;
    const float m1 = c.beta1 * kernels::FromBf16Bits(m[i]) + c.one_minus_beta1 * grad;
    const float m2 = c.beta2 * kernels::FromBf16Bits(v[i]) + c.one_minus_beta2 * (grad * grad);
    const float root = std::sqrt(m2) * c.root_correction + c.epsilon;
    w[i] = keep * w[i] - c.step_size * (m1 / root);
    const uint64_t draw = kernels::RoundingDraw(key, static_cast<uint64_t>(first + i));
    m[i] = kernels::RoundByChance(m1, static_cast<uint32_t>(draw));
    v[i] = kernels::RoundByChance(m2, static_cast<uint32_t>(draw >> 16));
  }
}

#define REIN_CPU_CLONES __attribute__((target_clones("avx512f", "arch=haswell", "default")))

REIN_CPU_CLONES void UpdateRange(
    const Coefficients& c, float keep, const float* g, float* w, float* m, float* v, int64_t n) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    const float grad = g[i] * c.scale;
    m[i] = c.beta1 * m[i] + c.one_minus_beta1 * grad;
    v[i] = c.beta2 * v[i] + c.one_minus_beta2 * (grad * grad);
    const float root = std::sqrt(v[i]) * c.root_correction + c.epsilon;
    w[i] = keep * w[i] - c.step_size * (m[i] / root);
  }
}

REIN_CPU_CLONES double SumOfSquares(const float* x, int64_t n) {
  double sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) sum += static_cast<double>(x[i]) * x[i];
  return sum;
}

// Calls `body(parameter, begin, length)` for the part of each parameter inside the slice, frozen ones included.
void ForEachInSlice(const Registry& registry, const Registry::Slice& slice,
                    const std::function<void(const Parameter&, int64_t, int64_t)>& body) {
  for (const Parameter& p : registry.parameters()) {
    if (!registry.InTrainedPart(p)) continue;
    const int64_t begin = std::max(p.offset, slice.begin);
    const int64_t end = std::min(p.offset + p.elements, slice.end);
    if (begin < end) body(p, begin - slice.begin, end - begin);
  }
}

// A stretch of the arena on the device; pointers to its first element.
struct DeviceView {
  Registry::Slice slice;
  const float* gradient = nullptr;
  float* weight = nullptr;
  char *moment1 = nullptr, *moment2 = nullptr, *rounded = nullptr;  // rounded may be null
};

// By the kernel, over stretches of parameters of one kind; the gaps between parameters hold zeros.
void StepOnDevice(const Registry& registry, kernels::AdamWRange range, float decayed, const DeviceView& view) {
  const int64_t moment_bytes = range.narrow ? 2 : 4;
  int64_t begin = 0, end = 0;  // of the stretch in hand; empty: none
  auto run = [&] {
    range.gradient = view.gradient + begin;
    range.weight = view.weight + begin;
    range.moment1 = view.moment1 + moment_bytes * begin;
    range.moment2 = view.moment2 + moment_bytes * begin;
    range.rounded = view.rounded == nullptr ? nullptr : view.rounded + 2 * begin;
    range.first_index = view.slice.begin + begin;
    range.size = end - begin;
    absl::Status status = kernels::RunAdamW(range, tensor::CurrentStream());
    TORCH_CHECK(status.ok(), std::string(status.message()));
  };
  ForEachInSlice(registry, view.slice, [&](const Parameter& p, int64_t first, int64_t length) {
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

char* Bytes(const at::Tensor& tensor) { return static_cast<char*>(tensor.mutable_data_ptr()); }

// State in host memory, brought over piece by piece.
void StepStaged(const Registry& registry, const kernels::AdamWRange& range, float decayed, const at::Tensor& grad,
                OptimizerState& state) {
  auto checked = [](const absl::Status& status) { TORCH_CHECK(status.ok(), std::string(status.message())); };
  if (state.staging == nullptr) {
    if (!state.staging_memory.defined()) {
      state.staging_memory = at::empty({2 * kStagingBytes}, grad.options().dtype(at::kByte));
    }
    auto staging = kernels::HostStaging::Create(state.staging_memory.mutable_data_ptr(), kStagingBytes);
    checked(staging.status());
    state.staging = *std::move(staging);
  }
  const int64_t moment_bytes = range.narrow ? 2 : 4;
  constexpr int64_t kMultiple = 1024;  // of elements, so that every part is aligned
  const int64_t most = kStagingBytes / (4 + 2 * moment_bytes) / kMultiple * kMultiple;
  const int64_t length = state.slice.end - state.slice.begin;
  int slot = 0;
  for (int64_t begin = 0; begin < length; begin += most, slot = 1 - slot) {
    const int64_t n = std::min(most, length - begin);
    auto places = state.staging->Fetch(slot,
                                       {{Bytes(state.master) + 4 * begin, 4 * n},
                                        {Bytes(state.moment1) + moment_bytes * begin, moment_bytes * n},
                                        {Bytes(state.moment2) + moment_bytes * begin, moment_bytes * n}},
                                       tensor::CurrentStream());
    checked(places.status());
    DeviceView view{.slice = {state.slice.begin + begin, state.slice.begin + begin + n},
                    .gradient = grad.const_data_ptr<float>() + begin,
                    .weight = static_cast<float*>((*places)[0]),
                    .moment1 = static_cast<char*>((*places)[1]),
                    .moment2 = static_cast<char*>((*places)[2])};
    if (state.rounded.defined()) view.rounded = Bytes(state.rounded) + 2 * begin;
    StepOnDevice(registry, range, decayed, view);
    checked(state.staging->Return(slot, tensor::CurrentStream()));
  }
  checked(state.staging->Finish());
}

void StepByKernel(const Registry& registry, const AdamWSettings& settings, const Coefficients& c, float decayed,
                  int64_t step, const at::Tensor& grad, OptimizerState& state) {
  kernels::AdamWRange range;
  range.beta1 = c.beta1;
  range.beta2 = c.beta2;
  range.one_minus_beta1 = c.one_minus_beta1;
  range.one_minus_beta2 = c.one_minus_beta2;
  range.step_size = c.step_size;
  range.root_correction = c.root_correction;
  range.epsilon = c.epsilon;
  range.scale = c.scale;
  range.narrow = Narrow(state);
  range.rounding_key = RoundingKey(settings, step);
  if (state.master.is_cpu()) return StepStaged(registry, range, decayed, grad, state);
  DeviceView view{.slice = state.slice,
                  .gradient = grad.const_data_ptr<float>(),
                  .weight = state.master.mutable_data_ptr<float>(),
                  .moment1 = Bytes(state.moment1),
                  .moment2 = Bytes(state.moment2)};
  if (state.rounded.defined()) view.rounded = Bytes(state.rounded);
  StepOnDevice(registry, range, decayed, view);
}

}  // namespace

void AdamWStep(const Registry& registry, const AdamWSettings& settings, double learning_rate,
               double scale, int64_t step, const at::Tensor& grad, OptimizerState& state) {
  const Coefficients c = Prepare(settings, learning_rate, scale, step);
  const float decayed = static_cast<float>(1 - learning_rate * settings.weight_decay);
  if (!grad.is_cpu()) return StepByKernel(registry, settings, c, decayed, step, grad, state);
  const auto* g = grad.const_data_ptr<float>();
  auto* w = state.master.mutable_data_ptr<float>();
  char *m = Bytes(state.moment1), *v = Bytes(state.moment2);
  const uint64_t key = RoundingKey(settings, step);
  ForEachInSlice(registry, state.slice, [&](const Parameter& p, int64_t begin, int64_t length) {
    if (!p.spec.trained) return;
    const float keep = p.spec.decay ? decayed : 1.0f;
    at::parallel_for(0, length, /*grain_size=*/1 << 16, [&](int64_t from, int64_t to) {
      const int64_t first = begin + from;
      if (Narrow(state)) {
        UpdateNarrowRange(c, keep, g + first, w + first, reinterpret_cast<uint16_t*>(m) + first,
                          reinterpret_cast<uint16_t*>(v) + first, to - from, key, state.slice.begin + first);
      } else {
        UpdateRange(c, keep, g + first, w + first, reinterpret_cast<float*>(m) + first,
                    reinterpret_cast<float*>(v) + first, to - from);
      }
    });
  });
}

void AdamWStepReference(const Registry& registry, const AdamWSettings& settings,
                        double learning_rate, double scale, int64_t step, const at::Tensor& grad,
                        OptimizerState& state) {
  const Coefficients c = Prepare(settings, learning_rate, scale, step);
  at::Tensor scaled = grad.mul(scale);
  at::Tensor m = state.moment1.to(at::kFloat).mul(settings.beta1).add_(scaled, 1 - settings.beta1);
  at::Tensor v = state.moment2.to(at::kFloat).mul(settings.beta2).addcmul_(scaled, scaled, 1 - settings.beta2);
  if (settings.weight_decay > 0) {
    ForEachInSlice(registry, state.slice, [&](const Parameter& p, int64_t begin, int64_t length) {
      if (!p.spec.decay || !p.spec.trained) return;
      state.master.narrow(0, begin, length).mul_(1 - learning_rate * settings.weight_decay);
    });
  }
  at::Tensor root = v.sqrt().mul_(c.root_correction).add_(settings.epsilon);
  state.master.addcdiv_(m, root, -static_cast<double>(c.step_size));
  if (state.rounded.defined()) state.rounded.copy_(state.master);
  if (Narrow(state)) {
    const uint64_t key = RoundingKey(settings, step);
    for (auto [wide, shift] : {std::pair{&m, 0}, {&v, 16}}) {
      *wide = wide->to(at::kCPU).contiguous();
      auto* x = wide->mutable_data_ptr<float>();
      for (int64_t i = 0; i < wide->numel(); ++i) {
        const uint64_t draw = kernels::RoundingDraw(key, static_cast<uint64_t>(state.slice.begin + i));
        x[i] = kernels::FromBf16Bits(kernels::RoundByChance(x[i], static_cast<uint32_t>(draw >> shift)));
      }
    }
  }
  state.moment1.copy_(m);
  state.moment2.copy_(v);
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
      partial[static_cast<size_t>(chunk)] = SumOfSquares(x + chunk * kChunk, std::min(kChunk, size - chunk * kChunk));
    }
  });
  double total = 0;
  for (double sum : partial) total += sum;
  return total;
}

}  // namespace rein::trainer

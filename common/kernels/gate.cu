#include "common/kernels/gate.h"

#include "common/kernels/bf16_vector.cuh"
#include "common/kernels/launch_overlap.cuh"
#include "common/kernels/launch_status.h"

namespace rein::kernels {
namespace {

constexpr int kThreads = 256;

__device__ float Sigmoid(float x) { return 1.0f / (1.0f + __expf(-x)); }

// Eight columns of one row for each thread: `at` among the T * F outputs, `gate` where its gate stands.
struct Place {
  int64_t at, gate;
  bool live;
};

__device__ Place Find(int64_t rows, int64_t columns) {
  const int64_t at = (blockIdx.x * static_cast<int64_t>(kThreads) + threadIdx.x) * 8;
  const int64_t row = at / columns;
  return {at, row * 2 * columns + at % columns, row < rows};
}

// Numbers of one gate: what `up` is multiplied by, and its derivative. One for each activation, and for the clamp.
struct Silu {
  __device__ explicit Silu(const GateRule&) {}
  __device__ float Value(float x) const { return x * Sigmoid(x); }
  __device__ float Derivative(float x) const {
    const float sigmoid = Sigmoid(x);
    return sigmoid * (1.0f + x * (1.0f - sigmoid));
  }
};

struct Gelu {
  __device__ explicit Gelu(const GateRule&) {}
  __device__ static float Below(float x) { return 0.5f * (1.0f + erff(x * 0.70710678118654752f)); }
  __device__ float Value(float x) const { return x * Below(x); }
  __device__ float Derivative(float x) const {
    return Below(x) + x * 0.39894228040143268f * __expf(-0.5f * x * x);
  }
};

struct GeluTanh {
  static constexpr float kScale = 0.79788456080286536f, kCube = 0.044715f;  // sqrt(2 / pi)
  __device__ explicit GeluTanh(const GateRule&) {}
  __device__ static float Tanh(float x) { return tanhf(kScale * (x + kCube * x * x * x)); }
  __device__ float Value(float x) const { return 0.5f * x * (1.0f + Tanh(x)); }
  __device__ float Derivative(float x) const {
    const float t = Tanh(x);
    return 0.5f * (1.0f + t) + 0.5f * x * (1.0f - t * t) * kScale * (1.0f + 3.0f * kCube * x * x);
  }
};

struct Relu {
  __device__ explicit Relu(const GateRule&) {}
  __device__ float Value(float x) const { return fmaxf(x, 0.0f); }
  __device__ float Derivative(float x) const { return x > 0 ? 1.0f : 0.0f; }
};

template <typename Activation>
struct Plain {
  Activation activation;
  __device__ explicit Plain(const GateRule& rule) : activation(rule) {}
  __device__ float Output(float gate, float up) const { return Rounded(activation.Value(gate)) * up; }
  __device__ void Gradient(float d, float gate, float up, float* dgate, float* dup) const {
    *dgate = d * up * activation.Derivative(gate);
    *dup = d * Rounded(activation.Value(gate));
  }
};

struct Clamped {
  float limit, slope;
  __device__ explicit Clamped(const GateRule& rule) : limit(rule.limit), slope(rule.slope) {}
  __device__ float Up(float up) const { return fminf(fmaxf(up, -limit), limit) + 1.0f; }
  __device__ float Output(float gate, float up) const {
    const float g = fminf(gate, limit);
    return Up(up) * (g * Sigmoid(slope * g));
  }
  __device__ void Gradient(float d, float gate, float up, float* dgate, float* dup) const {
    const float g = fminf(gate, limit), sigmoid = Sigmoid(slope * g);
    *dgate = gate <= limit ? d * Up(up) * sigmoid * (1.0f + slope * g * (1.0f - sigmoid)) : 0.0f;
    *dup = fabsf(up) <= limit ? d * g * sigmoid : 0.0f;
  }
};

template <typename Gate>
__global__ void GateKernel(GateRule rule, const bf16* gate_up, bf16* y, int64_t rows, int64_t columns) {
  AwaitLast();
  LetNextBegin();
  const Place place = Find(rows, columns);
  if (!place.live) return;
  const Gate apply(rule);
  float gate[8], up[8];
  Load8(gate_up + place.gate, gate);
  Load8(gate_up + place.gate + columns, up);
#pragma unroll
  for (int i = 0; i < 8; ++i) gate[i] = apply.Output(gate[i], up[i]);
  Store8(gate, y + place.at);
}

template <typename Gate>
__global__ void GateGradientKernel(GateRule rule, const bf16* gate_up, const bf16* dy, bf16* dgate_up, int64_t rows,
                                   int64_t columns) {
  const Place place = Find(rows, columns);
  if (!place.live) return;
  const Gate apply(rule);
  float gate[8], up[8], d[8];
  Load8(gate_up + place.gate, gate);
  Load8(gate_up + place.gate + columns, up);
  Load8(dy + place.at, d);
#pragma unroll
  for (int i = 0; i < 8; ++i) apply.Gradient(d[i], gate[i], up[i], &gate[i], &up[i]);
  Store8(gate, dgate_up + place.gate);
  Store8(up, dgate_up + place.gate + columns);
}

unsigned Blocks(int64_t rows, int64_t columns) {
  return static_cast<unsigned>((rows * columns / 8 + kThreads - 1) / kThreads);
}

template <typename T>
struct Type {
  using type = T;
};

// Calls `body` with the rule's gate as a type.
template <typename Body>
absl::Status WithGate(const GateRule& rule, Body body) {
  if (rule.limit > 0) return body(Type<Clamped>());
  switch (rule.activation) {
    case GateActivation::kSilu: return body(Type<Plain<Silu>>());
    case GateActivation::kGelu: return body(Type<Plain<Gelu>>());
    case GateActivation::kGeluTanh: return body(Type<Plain<GeluTanh>>());
    case GateActivation::kRelu: break;
  }
  return body(Type<Plain<Relu>>());
}

}  // namespace

absl::Status RunGate(const GateRule& rule, const void* gate_up, void* y, int64_t rows, int64_t columns, void* stream) {
  if (rows == 0) return absl::OkStatus();
  return WithGate(rule, [&](auto gate) {
    LaunchOverlapping(GateKernel<typename decltype(gate)::type>, dim3(Blocks(rows, columns)), kThreads, 0, stream, rule,
                      static_cast<const bf16*>(gate_up), static_cast<bf16*>(y), rows, columns);
    return LaunchStatus("Gate");
  });
}

absl::Status RunGateGradient(const GateRule& rule, const void* gate_up, const void* dy, void* dgate_up, int64_t rows,
                             int64_t columns, void* stream) {
  if (rows == 0) return absl::OkStatus();
  return WithGate(rule, [&](auto gate) {
    GateGradientKernel<typename decltype(gate)::type>
        <<<Blocks(rows, columns), kThreads, 0, static_cast<cudaStream_t>(stream)>>>(
            rule, static_cast<const bf16*>(gate_up), static_cast<const bf16*>(dy), static_cast<bf16*>(dgate_up), rows, columns);
    return LaunchStatus("GateGradient");
  });
}

}  // namespace rein::kernels

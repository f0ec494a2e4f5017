#include "common/kernels/adamw.h"

#include <algorithm>

#include "common/kernels/bf16_vector.cuh"
#include "common/kernels/launch_status.h"
#include "common/kernels/stochastic_rounding.h"

namespace rein::kernels {
namespace {

constexpr int kThreads = 256;

__device__ float Step(const AdamWRange& r, float gradient, float weight, float& m, float& v) {
  const float g = __fmul_rn(gradient, r.scale);
  m = __fmaf_rn(r.beta1, m, __fmul_rn(r.one_minus_beta1, g));
  v = __fmaf_rn(r.beta2, v, __fmul_rn(r.one_minus_beta2, __fmul_rn(g, g)));
  const float root = __fmaf_rn(__fsqrt_rn(v), r.root_correction, r.epsilon);
  return __fmaf_rn(r.keep, weight, -__fmul_rn(r.step_size, __fdiv_rn(m, root)));
}

// Moments of one element, in fp32 whatever they are kept in.
template <bool kNarrow>
struct Moments {
  static __device__ float Read(const void* moment, int64_t i) {
    if constexpr (kNarrow) {
      return FromBf16Bits(static_cast<const uint16_t*>(moment)[i]);
    } else {
      return static_cast<const float*>(moment)[i];
    }
  }
  static __device__ void Write(const AdamWRange& r, int64_t i, float m, float v) {
    if constexpr (kNarrow) {
      const uint64_t draw = RoundingDraw(r.rounding_key, static_cast<uint64_t>(r.first_index + i));
      static_cast<uint16_t*>(r.moment1)[i] = RoundByChance(m, static_cast<uint32_t>(draw));
      static_cast<uint16_t*>(r.moment2)[i] = RoundByChance(v, static_cast<uint32_t>(draw >> 16));
    } else {
      static_cast<float*>(r.moment1)[i] = m;
      static_cast<float*>(r.moment2)[i] = v;
    }
  }
};

template <bool kNarrow>
__device__ void StepOne(const AdamWRange& r, int64_t i) {
  float m = Moments<kNarrow>::Read(r.moment1, i), v = Moments<kNarrow>::Read(r.moment2, i);
  r.weight[i] = Step(r, r.gradient[i], r.weight[i], m, v);
  Moments<kNarrow>::Write(r, i, m, v);
  if (r.rounded != nullptr) static_cast<bf16*>(r.rounded)[i] = __float2bfloat16_rn(r.weight[i]);
}

// Four elements a thread; the ends that are no multiple of four go one by one.
__global__ void AdamWKernel(AdamWRange r) {
  const int64_t i = (blockIdx.x * static_cast<int64_t>(kThreads) + threadIdx.x) * 4;
  if (i + 4 <= r.size) {
    const float4 g = *reinterpret_cast<const float4*>(r.gradient + i);
    float4 w = *reinterpret_cast<const float4*>(r.weight + i);
    float4 m = *reinterpret_cast<const float4*>(static_cast<const float*>(r.moment1) + i);
    float4 v = *reinterpret_cast<const float4*>(static_cast<const float*>(r.moment2) + i);
    w = {Step(r, g.x, w.x, m.x, v.x), Step(r, g.y, w.y, m.y, v.y), Step(r, g.z, w.z, m.z, v.z),
         Step(r, g.w, w.w, m.w, v.w)};
    *reinterpret_cast<float4*>(r.weight + i) = w;
    *reinterpret_cast<float4*>(static_cast<float*>(r.moment1) + i) = m;
    *reinterpret_cast<float4*>(static_cast<float*>(r.moment2) + i) = v;
    if (r.rounded != nullptr) {
      auto* out = reinterpret_cast<__nv_bfloat162*>(static_cast<bf16*>(r.rounded) + i);
      out[0] = __floats2bfloat162_rn(w.x, w.y);
      out[1] = __floats2bfloat162_rn(w.z, w.w);
    }
    return;
  }
  for (int64_t j = i; j < r.size; ++j) StepOne<false>(r, j);
}

// One element a thread: warps read and write whole lines all the same.
__global__ void NarrowAdamWKernel(AdamWRange r) {
  const int64_t i = blockIdx.x * static_cast<int64_t>(kThreads) + threadIdx.x;
  if (i < r.size) StepOne<true>(r, i);
}

__device__ double BlockSumDouble(double x) {
  __shared__ double of_warp[kThreads / 32];
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) x += __shfl_xor_sync(~0u, x, offset);
  if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = x;
  __syncthreads();
  double total = 0;
  for (int w = 0; w < kThreads / 32; ++w) total += of_warp[w];
  return total;
}

__global__ void SquaredNormKernel(const float* x, int64_t size, double* partial) {
  double sum = 0;
  const int64_t stride = static_cast<int64_t>(gridDim.x) * kThreads * 4;
  for (int64_t i = (blockIdx.x * static_cast<int64_t>(kThreads) + threadIdx.x) * 4; i < size;
       i += stride) {
    if (i + 4 <= size) {
      const float4 v = *reinterpret_cast<const float4*>(x + i);
      sum += static_cast<double>(v.x) * v.x + static_cast<double>(v.y) * v.y +
             static_cast<double>(v.z) * v.z + static_cast<double>(v.w) * v.w;
    } else {
      for (int64_t j = i; j < size; ++j) sum += static_cast<double>(x[j]) * x[j];
    }
  }
  sum = BlockSumDouble(sum);
  if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

__global__ void AddPartialsKernel(const double* partial, int count, double* sum) {
  double total = 0;
  for (int i = threadIdx.x; i < count; i += kThreads) total += partial[i];
  total = BlockSumDouble(total);
  if (threadIdx.x == 0) *sum = total;
}

}  // namespace

absl::Status RunAdamW(const AdamWRange& range, void* stream) {
  if (range.size == 0) return absl::OkStatus();
  auto* on = static_cast<cudaStream_t>(stream);
  const int64_t a_block = range.narrow ? kThreads : 4 * kThreads;
  const auto blocks = static_cast<unsigned>((range.size + a_block - 1) / a_block);
  if (range.narrow) {
    NarrowAdamWKernel<<<blocks, kThreads, 0, on>>>(range);
  } else {
    AdamWKernel<<<blocks, kThreads, 0, on>>>(range);
  }
  return LaunchStatus("AdamW");
}

absl::Status SquaredNorm(const float* x, int64_t size, double* partial, double* sum, void* stream) {
  auto* on = static_cast<cudaStream_t>(stream);
  SquaredNormKernel<<<kSquaredNormBlocks, kThreads, 0, on>>>(x, size, partial);
  AddPartialsKernel<<<1, kThreads, 0, on>>>(partial, kSquaredNormBlocks, sum);
  return LaunchStatus("SquaredNorm");
}

}  // namespace rein::kernels

#include "common/kernels/unpack.h"

#include <cuda_bf16.h>

#include "common/kernels/launch_status.h"

namespace rein::kernels {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kOfThread = 8, kBlock = 64;

__constant__ float kTable[16] = {-1.0f, -0.6961928009986877f, -0.5250730514526367f, -0.39491748809814453f,
                                 -0.28444138169288635f, -0.18477343022823334f, -0.09105003625154495f, 0.0f,
                                 0.07958029955625534f, 0.16093020141124725f, 0.24611230194568634f, 0.33791524171829224f,
                                 0.44070982933044434f, 0.5626170039176941f, 0.7229568362236023f, 1.0f};

__device__ void Put(float value, float* to) { *to = value; }
__device__ void Put(float value, __nv_bfloat16* to) { *to = __float2bfloat16_rn(value); }

// Eight neighbours for each thread: four bytes, all of one block.
template <typename Out>
__global__ void UnpackNf4(const uint32_t* code, const float* scale, Out* out, int64_t elements) {
  __shared__ float table[16];
  if (threadIdx.x < 16) table[threadIdx.x] = kTable[threadIdx.x];
  __syncthreads();
  const int64_t at = (blockIdx.x * static_cast<int64_t>(kThreads) + threadIdx.x) * kOfThread;
  if (at >= elements) return;
  const uint32_t word = code[at / kOfThread];
  const float by = scale[at / kBlock];
  alignas(16) Out values[kOfThread];
#pragma unroll
  for (int i = 0; i < kOfThread; ++i) {
    const uint32_t byte = word >> (8 * (i / 2)) & 255;
    Put(__fmul_rn(table[i % 2 == 0 ? byte >> 4 : byte & 15], by), &values[i]);
  }
#pragma unroll
  for (int i = 0; i < static_cast<int>(sizeof(values) / sizeof(uint4)); ++i) {
    reinterpret_cast<uint4*>(out + at)[i] = reinterpret_cast<const uint4*>(values)[i];
  }
}

template <typename Out>
__global__ void UnpackInt8(const int8_t* code, const float* scale, Out* out, int64_t elements, int64_t columns) {
  const int64_t at = (blockIdx.x * static_cast<int64_t>(kThreads) + threadIdx.x) * kOfThread;
  if (at >= elements) return;
  int64_t row = at / columns, left = columns - at % columns;  // left: of this row
  float by = scale[row];
  const int64_t end = at + kOfThread < elements ? at + kOfThread : elements;
  for (int64_t i = at; i < end; ++i, --left) {
    if (left == 0) {
      by = scale[++row];
      left = columns;
    }
    Put(__fmul_rn(static_cast<float>(code[i]), by), out + i);
  }
}

template <typename Out>
void Launch(const Unpacking& run, cudaStream_t stream) {
  const int64_t threads = (run.elements + kOfThread - 1) / kOfThread;
  const auto blocks = static_cast<unsigned>((threads + kThreads - 1) / kThreads);
  auto* out = static_cast<Out*>(run.out);
  if (run.nf4) {
    UnpackNf4<Out><<<blocks, kThreads, 0, stream>>>(static_cast<const uint32_t*>(run.code), run.scale, out, run.elements);
  } else {
    UnpackInt8<Out><<<blocks, kThreads, 0, stream>>>(static_cast<const int8_t*>(run.code), run.scale, out, run.elements, run.columns);
  }
}

}  // namespace

absl::Status Unpack(const Unpacking& run, void* stream) {
  if (run.elements == 0) return absl::OkStatus();
  if (run.nf4 && run.elements % kBlock != 0) return absl::InvalidArgumentError("Unpack: nf4 wants whole blocks of 64 numbers");
  auto* on = static_cast<cudaStream_t>(stream);
  run.narrow ? Launch<__nv_bfloat16>(run, on) : Launch<float>(run, on);
  return LaunchStatus("Unpack");
}

}  // namespace rein::kernels

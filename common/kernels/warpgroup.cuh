// Products of warpgroups (wgmma, bf16 in, fp32 sums), asynchronous; only for .cu files built for sm_90a. Matrices in shared
// memory stand as copy_engine.cuh says.

#pragma once

#include <cuda_bf16.h>

#include <type_traits>

#include "common/kernels/copy_engine.cuh"

namespace rein::kernels {

// Where shared memory has an element of a matrix of so many rows.
__device__ inline int Swizzled(int rows, int row, int column) {
  return column / kBlockColumns * rows * kBlockColumns + SwizzledPiece(row, column % kBlockColumns) + column % 8;
}

// The matrix descriptor of a block that begins at `address`; `block_stride` is the distance of blocks of 64
// columns, which only a matrix read across its rows (values) needs.
__device__ inline uint64_t Descriptor(const __nv_bfloat16* address, int block_stride_bytes) {
  uint64_t d = (SharedAddress(address) & 0x3FFFF) >> 4;
  d |= static_cast<uint64_t>(block_stride_bytes >> 4) << 16;
  d |= static_cast<uint64_t>(1024 >> 4) << 32;  // eight rows
  d |= uint64_t{1} << 62;                       // 128-byte swizzle
  return d;
}

// The descriptor of what lies so many bytes, a multiple of 16, behind a matrix.
__device__ inline uint64_t Behind(uint64_t descriptor, int bytes) {
  uint64_t d;
  asm("{\n.reg .b32 low, high;\nmov.b64 {low, high}, %1;\nadd.u32 low, low, %2;\nmov.b64 %0, {low, high};\n}\n"
      : "=l"(d)
      : "l"(descriptor), "r"(bytes >> 4));
  return d;
}

__device__ inline void FenceProducts() { asm volatile("wgmma.fence.sync.aligned;\n" ::: "memory"); }
__device__ inline void CommitProducts() { asm volatile("wgmma.commit_group.sync.aligned;\n" ::: "memory"); }
template <int kPending>
__device__ inline void WaitForProducts() {
  asm volatile("wgmma.wait_group.sync.aligned %0;\n" ::"n"(kPending) : "memory");
}

// Keeps the compiler from moving what computes a register past this point: the registers of a product must be
// ready before it begins and untouched until it is waited for.
template <typename T, int kCount>
__device__ inline void Pin(T (&registers)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    if constexpr (std::is_array_v<T>) {
      Pin(registers[i]);
    } else if constexpr (std::is_same_v<T, float>) {
      asm volatile("" : "+f"(registers[i])::"memory");
    } else {
      asm volatile("" : "+r"(registers[i])::"memory");
    }
  }
}

// The registers of 64 columns of a product, as its operands; mode: +f, or =f for those that only come out.
#define REIN_FOUR_SUMS(mode, d) mode((d)[0]), mode((d)[1]), mode((d)[2]), mode((d)[3])
#define REIN_SUMS(mode, d)                                                                                  \
  REIN_FOUR_SUMS(mode, (d)[0]), REIN_FOUR_SUMS(mode, (d)[1]), REIN_FOUR_SUMS(mode, (d)[2]), REIN_FOUR_SUMS(mode, (d)[3]), \
      REIN_FOUR_SUMS(mode, (d)[4]), REIN_FOUR_SUMS(mode, (d)[5]), REIN_FOUR_SUMS(mode, (d)[6]), REIN_FOUR_SUMS(mode, (d)[7])
// Their numbers in the instruction: of 64 columns, and of the next 64.
#define REIN_SUM_NAMES                                                                                                 \
  "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31"
#define REIN_NEXT_SUM_NAMES                                                                                              \
  "%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63"
#define REIN_M64N64 "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" REIN_SUM_NAMES "}, "
#define REIN_M64N128 "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" REIN_SUM_NAMES "," REIN_NEXT_SUM_NAMES "}, "

// d[64 x 64] (+)= a[64 x 16] b, a in registers and b in shared memory: [64 x 16] transposed, or kAcross [16 x 64], read across its
// rows.
template <bool kAcross>
__device__ inline void MultiplyRegisters(float (&d)[8][4], const uint32_t (&a)[4], uint64_t b, int accumulate) {
  asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %37, 0;\n" REIN_M64N64 "{%32,%33,%34,%35}, %36, p, 1, 1, %38;\n}\n"
               : REIN_SUMS("+f", d)
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(accumulate), "n"(kAcross));
}

// score[64 x 64] (+)= q[64 x 16] key[64 x 16]^T; the keys in shared memory, the queries in registers or there too.
__device__ inline void MultiplyScores(float (&d)[8][4], const uint32_t (&q)[4], uint64_t key, int accumulate) {
  MultiplyRegisters<false>(d, q, key, accumulate);
}
__device__ inline void MultiplyScores(float (&d)[8][4], uint64_t q, uint64_t key, int accumulate) {
  asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %34, 0;\n" REIN_M64N64 "%32, %33, p, 1, 1, 0, 0;\n}\n"
               : REIN_SUMS("+f", d)
               : "l"(q), "l"(key), "r"(accumulate));
}

// score[64 x 64] = q[64 x 16] key[64 x 16]^T, both in shared memory: whatever stood in these registers, the compiler may forget.
__device__ inline void BeginScores(float (&d)[8][4], uint64_t q, uint64_t key) {
  asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, 0, 0;\n" REIN_M64N64 "%32, %33, p, 1, 1, 0, 0;\n}\n"
               : REIN_SUMS("=f", d)
               : "l"(q), "l"(key));
}

// out[64 x 64] (+)= p[64 x 16] value[16 x 64]; p in registers, value in shared memory, read across its rows.
__device__ inline void MultiplyValues(float (&d)[8][4], const uint32_t (&p)[4], uint64_t value, int accumulate) {
  MultiplyRegisters<true>(d, p, value, accumulate);
}

// d[64 x 64 kBlocks] += a b, b[16 x 64 kBlocks] in shared memory and read across its rows; a[64 x 16] in registers.
template <int kBlocks>
__device__ inline void AddValues(float (&d)[kBlocks][8][4], const uint32_t (&a)[4], uint64_t b) {
  static_assert(kBlocks == 1 || kBlocks == 2);
  if constexpr (kBlocks == 1) {
    MultiplyValues(d[0], a, b, 1);
  } else {
    asm volatile(REIN_M64N128 "{%64,%65,%66,%67}, %68, 1, 1, 1, 1;\n"
                 : REIN_SUMS("+f", d[0]), REIN_SUMS("+f", d[1])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
  }
}

// The same with a[16 x 64]^T in shared memory, read across its rows too.
template <int kBlocks>
__device__ inline void AddValues(float (&d)[kBlocks][8][4], uint64_t a, uint64_t b) {
  static_assert(kBlocks == 1 || kBlocks == 2);
  if constexpr (kBlocks == 1) {
    asm volatile(REIN_M64N64 "%32, %33, 1, 1, 1, 1, 1;\n" : REIN_SUMS("+f", d[0]) : "l"(a), "l"(b));
  } else {
    asm volatile(REIN_M64N128 "%64, %65, 1, 1, 1, 1, 1;\n" : REIN_SUMS("+f", d[0]), REIN_SUMS("+f", d[1]) : "l"(a), "l"(b));
  }
}

#undef REIN_FOUR_SUMS
#undef REIN_SUMS
#undef REIN_SUM_NAMES
#undef REIN_NEXT_SUM_NAMES
#undef REIN_M64N64
#undef REIN_M64N128

}  // namespace rein::kernels

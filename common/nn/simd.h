// Loops of the CPU written once with vectors of a compiler's own, and compiled for several instruction sets.

#pragma once

#include <vector>

namespace rein::nn {

enum class Simd { kPlain, kAvx2, kAvx512 };

// What this processor runs, the fastest first.
inline const std::vector<Simd>& Simds() {
  static const std::vector<Simd> simds = [] {
    std::vector<Simd> all;
    if (__builtin_cpu_supports("avx512f")) all.push_back(Simd::kAvx512);
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) all.push_back(Simd::kAvx2);
    all.push_back(Simd::kPlain);
    return all;
  }();
  return simds;
}

#define REIN_INLINE __attribute__((always_inline)) inline
#define REIN_AVX512 __attribute__((target("avx512f")))
#define REIN_AVX2 __attribute__((target("avx2,fma")))

// kLanes floats: 16 with AVX-512, 8 with AVX2, 4 without; read from and written to any address.
template <int kLanes>
struct VectorOf {
  typedef float Floats __attribute__((vector_size(kLanes * sizeof(float)), aligned(sizeof(float)), may_alias));
  typedef int Index __attribute__((vector_size(kLanes * sizeof(float))));
};
template <int kLanes>
using Floats = typename VectorOf<kLanes>::Floats;

template <int kLanes>
REIN_INLINE const Floats<kLanes>& FloatsAt(const float* p) {
  return *reinterpret_cast<const Floats<kLanes>*>(p);
}
template <int kLanes>
REIN_INLINE Floats<kLanes>& FloatsAt(float* p) {
  return *reinterpret_cast<Floats<kLanes>*>(p);
}

// Lane i of sum[0] becomes the total of sum[i], for kLanes vectors. Each total adds lanes l and l + kLanes / 2 first, then halves of
// those, and so on.
template <int kLanes>
REIN_INLINE void AddLanes(Floats<kLanes>* sum) {
#pragma GCC unroll 8
  for (int width = kLanes / 2; width > 0; width /= 2) {
    typename VectorOf<kLanes>::Index low, high;  // of pairs (a, b), in blocks of 2 width lanes: the lower half of each, and the upper
#pragma GCC unroll 16
    for (int l = 0; l < kLanes; ++l) {
      low[l] = (l & width) != 0 ? kLanes + l - width : l;
      high[l] = (l & width) != 0 ? kLanes + l : l + width;
    }
#pragma GCC unroll 16
    for (int i = 0; i < width; ++i) {
      const Floats<kLanes> a = sum[i], b = sum[i + width];
      sum[i] = __builtin_shuffle(a, b, low) + __builtin_shuffle(a, b, high);
    }
  }
}

// The same total of one vector.
template <int kLanes>
REIN_INLINE float TotalOf(const Floats<kLanes>& sum) {
  float lane[kLanes];
  FloatsAt<kLanes>(lane) = sum;
#pragma GCC unroll 8
  for (int width = kLanes / 2; width > 0; width /= 2) {
#pragma GCC unroll 16
    for (int l = 0; l < width; ++l) lane[l] += lane[l + width];
  }
  return lane[0];
}

}  // namespace rein::nn

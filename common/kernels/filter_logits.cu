#include "common/kernels/filter_logits.h"

#include "common/kernels/bf16_vector.cuh"
#include "common/kernels/launch_status.h"

namespace rein::kernels {
namespace {

constexpr int kThreads = 1024, kWarps = kThreads / 32;
constexpr int kPerThread = 8;
constexpr float kUnit = 0x1p40f;  // of mass: the likeliest token has so many units

// Grows with the value, and is one for both zeros; 0 is below every number.
__device__ uint32_t KeyOf(uint16_t bits) {
  return bits & 0x8000 && bits != 0x8000 ? 0xFFFFu & ~bits : bits | 0x8000u;
}
__device__ float ValueOf(uint32_t key) {
  const auto bits = static_cast<uint16_t>(key & 0x8000 ? key & 0x7FFF : ~key);
  return __bfloat162float(__ushort_as_bfloat16(bits));
}
__device__ uint32_t ExcludedKey() { return KeyOf(0xFF80); }  // of -inf

__device__ __nv_bfloat162 PairOf(uint32_t key) { return __bfloat162bfloat162(__float2bfloat16_rn(ValueOf(key))); }

struct Row {
  bf16* logits;
  int vocabulary;
  bool aligned;  // rows begin at multiples of 16 bytes
  float temperature, max;  // max: the largest logit / temperature

  // Eight neighbours; beyond the vocabulary NaN, of key 0.
  struct Eight {
    uint4 raw;
    __device__ uint32_t Key(int i) const { return KeyOf(reinterpret_cast<const uint16_t*>(&raw)[i]); }
    // How many are at or above both halves of `least`, times 16; 0 as well where there are none.
    __device__ uint32_t CountFrom(__nv_bfloat162 least) const {
      uint32_t count = 0;
#pragma unroll
      for (int i = 0; i < kPerThread / 2; ++i) {
        count += __popc(__hge2_mask(reinterpret_cast<const __nv_bfloat162*>(&raw)[i], least));
      }
      return count;
    }
  };
  __device__ Eight Load(int from) const {
    Eight eight;
    if (aligned && from + kPerThread <= vocabulary) {
      eight.raw = *reinterpret_cast<const uint4*>(logits + from);
    } else {
      auto* bits = reinterpret_cast<uint16_t*>(&eight.raw);
#pragma unroll
      for (int i = 0; i < kPerThread; ++i) {
        bits[i] = from + i < vocabulary ? __bfloat16_as_ushort(logits[from + i]) : 0xFFFF;
      }
    }
    return eight;
  }
  // body(eight) for all columns.
  template <typename Body>
  __device__ void ForEachEight(Body body) const {
    for (int from = threadIdx.x * kPerThread; from < vocabulary; from += kThreads * kPerThread) body(Load(from));
  }
  // body(key) for each column at or above `least`.
  template <typename Body>
  __device__ void ForEach(uint32_t least, Body body) const {
    const __nv_bfloat162 pair = PairOf(least);
    ForEachEight([&](const Eight& eight) {
      if (eight.CountFrom(pair) == 0) return;
#pragma unroll
      for (int i = 0; i < kPerThread; ++i) {
        if (eight.Key(i) >= least) body(eight.Key(i));
      }
    });
  }
  __device__ unsigned long long Mass(uint32_t key) const {
    return __float2ull_rn(expf(__fdiv_rn(ValueOf(key), temperature) - max) * kUnit);
  }
};

template <typename T>
__device__ T BlockTotal(T x, T* scratch) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) x += __shfl_xor_sync(~0u, x, offset);
  __syncthreads();
  if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = x;
  __syncthreads();
  x = scratch[threadIdx.x % 32];
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) x += __shfl_xor_sync(~0u, x, offset);
  return x;
}

// Of a set of tokens: those above `key`, and the first `equal` of those that have it.
struct Border {
  uint32_t key = 0;
  unsigned long long equal = ~0ull;
};

// The largest key such that what `weigh` finds at or above it adds up to `wanted`; 0 when all together do not.
// weigh(keys, sums): adds to sums[i] the weights of this thread's tokens at or above keys[i], three rising ones.
// above: what those above the key add up to.
template <typename Weigh>
__device__ uint32_t Search(unsigned long long wanted, unsigned long long* scratch, Weigh weigh, unsigned long long* above) {
  uint32_t found = 0;
  *above = 0;
  for (int shift = 14; shift >= 0; shift -= 2) {
    const uint32_t keys[3] = {found + (1u << shift), found + (2u << shift), found + (3u << shift)};
    unsigned long long sum[3] = {};
    weigh(keys, sum);
    uint32_t step = 0;
#pragma unroll
    for (uint32_t i = 0; i < 3; ++i) {
      sum[i] = BlockTotal(sum[i], scratch);
      if (sum[i] >= wanted) step = i + 1;
    }
    if (step < 3) *above = sum[step];  // those at or above the next key that was tried and missed
    found += step << shift;
  }
  return found;
}

// How many of the threads before this one are set, over the block, and how many in all.
__device__ int2 CountBefore(int mine, int* scratch) {
  int sum = mine;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
#pragma unroll
  for (int offset = 1; offset < 32; offset *= 2) {
    const int other = __shfl_up_sync(~0u, sum, offset);
    if (lane >= offset) sum += other;
  }
  __syncthreads();
  if (lane == 31) scratch[warp] = sum;
  __syncthreads();
  int before = 0, total = 0;
  for (int w = 0; w < kWarps; ++w) {
    before += w < warp ? scratch[w] : 0;
    total += scratch[w];
  }
  return {before + sum - mine, total};
}

// The k likeliest.
__device__ Border BorderOfTopK(const Row& row, uint32_t top_k, unsigned long long* scratch) {
  auto count = [&](const uint32_t(&keys)[3], unsigned long long(&sum)[3]) {
    const __nv_bfloat162 pair[3] = {PairOf(keys[0]), PairOf(keys[1]), PairOf(keys[2])};
    uint32_t sixteenfold[3] = {};
    row.ForEachEight([&](const Row::Eight& eight) {
#pragma unroll
      for (int i = 0; i < 3; ++i) sixteenfold[i] += eight.CountFrom(pair[i]);
    });
#pragma unroll
    for (int i = 0; i < 3; ++i) sum[i] = sixteenfold[i] / 16;
  };
  unsigned long long above = 0;
  const uint32_t key = Search(top_k, scratch, count, &above);
  return key > ExcludedKey() ? Border{key, top_k - above} : Border{ExcludedKey(), 0};
}

// Of those `kept`, the likeliest with `top_p` of their mass. Of the tokens at the border of `kept` all have weight in
// the search, but no more than are kept count in the sum.
__device__ Border BorderOfTopP(const Row& row, const Border& kept, double top_p, unsigned long long* scratch) {
  auto weigh = [&](const uint32_t(&keys)[3], unsigned long long(&sum)[3]) {
    row.ForEach(max(keys[0], max(kept.key, ExcludedKey() + 1)), [&](uint32_t key) {
      const unsigned long long mass = row.Mass(key);
#pragma unroll
      for (int i = 0; i < 3; ++i) sum[i] += key >= keys[i] ? mass : 0;
    });
  };
  unsigned long long total = 0, above = 0;
  row.ForEach(kept.key + 1, [&](uint32_t key) { total += row.Mass(key); });
  total = BlockTotal(total, scratch);
  if (kept.key > ExcludedKey()) total += kept.equal * row.Mass(kept.key);
  const auto wanted = max(1ull, static_cast<unsigned long long>(ceil(static_cast<double>(total) * top_p)));
  const uint32_t key = Search(wanted, scratch, weigh, &above);
  if (key < kept.key || key <= ExcludedKey()) return kept;
  const unsigned long long each = max(1ull, row.Mass(key)), equal = (wanted - above + each - 1) / each;
  return {key, key == kept.key ? min(equal, kept.equal) : equal};
}

// Goes through the columns in order, so that the first of equal tokens are kept.
__device__ void Exclude(const Row& row, const Border& border, double min_p, int* scratch) {
  const bool cuts_equal = border.key > ExcludedKey();
  unsigned long long equal_before = 0;
  const bf16 excluded = __ushort_as_bfloat16(0xFF80);
  const int rounded = (row.vocabulary + kThreads * kPerThread - 1) / (kThreads * kPerThread) * kThreads * kPerThread;
  for (int from = threadIdx.x * kPerThread; from < rounded; from += kThreads * kPerThread) {
    const Row::Eight eight = row.Load(from);
    unsigned long long place = 0;
    if (cuts_equal) {
      int equal = 0;
#pragma unroll
      for (int i = 0; i < kPerThread; ++i) equal += eight.Key(i) == border.key ? 1 : 0;
      const int2 count = CountBefore(equal, scratch);
      place = equal_before + count.x;
      equal_before += count.y;
    }
#pragma unroll
    for (int i = 0; i < kPerThread; ++i) {
      const uint32_t key = eight.Key(i);
      if (key == 0) continue;
      bool keep = key > border.key;
      if (key == border.key) keep = place++ < border.equal;
      if (keep && min_p > 0) keep = expf(__fdiv_rn(ValueOf(key), row.temperature) - row.max) >= min_p;
      if (!keep) row.logits[from + i] = excluded;
    }
  }
}

// A block for each row.
__global__ void __launch_bounds__(kThreads) FilterLogitsKernel(LogitFilter run) {
  __shared__ unsigned long long sums[kWarps];
  __shared__ int counts[kWarps];
  __shared__ uint32_t largest;
  const FilterRow filter = run.row[blockIdx.x];
  Row row{static_cast<bf16*>(run.logits) + blockIdx.x * run.stride, static_cast<int>(run.vocabulary), run.stride % 8 == 0,
          filter.temperature, 0};
  if (threadIdx.x == 0) largest = 0;
  __syncthreads();
  uint32_t most = 0;
  row.ForEach(ExcludedKey(), [&](uint32_t key) { most = max(most, key); });
  atomicMax(&largest, most);
  __syncthreads();
  if (largest <= ExcludedKey()) return;  // nothing is left to choose from
  row.max = __fdiv_rn(ValueOf(largest), filter.temperature);
  Border border{ExcludedKey(), 0};
  if (filter.top_k > 0 && filter.top_k < run.vocabulary) border = BorderOfTopK(row, filter.top_k, sums);
  if (filter.top_p < 1) border = BorderOfTopP(row, border, filter.top_p, sums);
  if (border.key > ExcludedKey() || filter.min_p > 0) Exclude(row, border, filter.min_p, counts);
}

}  // namespace

absl::Status FilterLogits(const LogitFilter& run, void* stream) {
  if (run.rows == 0) return absl::OkStatus();
  FilterLogitsKernel<<<static_cast<unsigned>(run.rows), kThreads, 0, static_cast<cudaStream_t>(stream)>>>(run);
  return LaunchStatus("FilterLogits");
}

}  // namespace rein::kernels

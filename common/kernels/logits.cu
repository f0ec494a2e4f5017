#include "common/kernels/logits.h"

#include <cfloat>
#include <cmath>

#include "common/kernels/bf16_vector.cuh"
#include "common/kernels/hopper.h"
#include "common/kernels/launch_status.h"

namespace rein::kernels {
namespace {

constexpr int kThreads = 256;
constexpr int kPerThread = 32;  // consecutive columns: the ones that eight Philox counters serve
static_assert(kThreads * kPerThread == kVocabularySlice);

// Of one slice: the largest z, the sum of exp(z - max), the sum of exp(z - max) z.
struct Part {
  float max, sum, weighted;
};

// What a slice gives to a draw beside its Part.
struct Candidate {
  float score, z;
  int column;
};

__device__ float BlockMax(float x, float* scratch) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) x = fmaxf(x, __shfl_xor_sync(~0u, x, offset));
  __syncthreads();
  if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = x;
  __syncthreads();
  x = scratch[threadIdx.x % (kThreads / 32)];
#pragma unroll
  for (int offset = 4; offset > 0; offset /= 2) x = fmaxf(x, __shfl_xor_sync(~0u, x, offset));
  return x;
}

// e^x by the hardware, for x <= 0 (NaN stays one): what is lost near 0 is an ulp or two, and far below little is left of it.
__device__ float ExpOf(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(__fmul_rn(x, 1.44269504088896340736f)));
  return y;
}

// Eight neighbours at once need rows that begin at multiples of 16 bytes: those of odd vocabularies do not.
__device__ bool Aligned(int64_t stride) { return stride % 8 == 0; }

// This thread's columns of its slice as they are in memory; -inf beyond the vocabulary.
struct RawZ {
  uint4 eight[kPerThread / 8];

  __device__ void Load(const bf16* row, bool aligned, int first, int vocabulary) {
#pragma unroll
    for (int i = 0; i < kPerThread / 8; ++i) {
      const int column = first + 8 * i;
      if (aligned && column + 8 <= vocabulary) {
        eight[i] = *reinterpret_cast<const uint4*>(row + column);
        continue;
      }
      __align__(16) bf16 own[8];
#pragma unroll
      for (int j = 0; j < 8; ++j) own[j] = column + j < vocabulary ? row[column + j] : __float2bfloat16_rn(-INFINITY);
      eight[i] = *reinterpret_cast<const uint4*>(own);
    }
  }
  __device__ void Over(float temperature, float (&z)[kPerThread]) const {
#pragma unroll
    for (int i = 0; i < kPerThread / 8; ++i) {
      Load8(reinterpret_cast<const bf16*>(&eight[i]), z + 8 * i);
      if (temperature == 1) continue;  // x / 1 is x
#pragma unroll
      for (int j = 0; j < 8; ++j) z[8 * i + j] = __fdiv_rn(z[8 * i + j], temperature);
    }
  }
};

// This thread's columns of its slice, divided by the temperature.
__device__ void LoadZ(const bf16* row, bool aligned, int first, int vocabulary, float temperature,
                      float (&z)[kPerThread]) {
  RawZ raw;
  raw.Load(row, aligned, first, vocabulary);
  raw.Over(temperature, z);
}

// What one thread of each warp says and all read, for each of the figures of ReduceSlice: by the time one is said again, a
// barrier has been passed since it was read.
struct SliceScratch {
  float max[kThreads / 32], sum[kThreads / 32], weighted[kThreads / 32];
};

// In every thread. `weighted` only where it is asked for.
template <bool kWeighted>
__device__ Part ReduceSlice(const float (&z)[kPerThread], SliceScratch& scratch) {
  constexpr int kWarps = kThreads / 32;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  float max = -INFINITY;
#pragma unroll
  for (int i = 0; i < kPerThread; ++i) max = fmaxf(max, z[i]);
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) max = fmaxf(max, __shfl_xor_sync(~0u, max, offset));
  if (lane == 0) scratch.max[warp] = max;
  __syncthreads();
#pragma unroll
  for (int w = 0; w < kWarps; ++w) max = fmaxf(max, scratch.max[w]);
  Part part{max, 0, 0};
  const float shift = max == -INFINITY ? 0.0f : max;  // then every z is -inf, and nothing is added
#pragma unroll
  for (int i = 0; i < kPerThread; ++i) {
    const float p = ExpOf(__fsub_rn(z[i], shift));
    part.sum = __fadd_rn(part.sum, p);
    if (kWeighted) part.weighted = __fmaf_rn(p, fmaxf(z[i], -FLT_MAX), part.weighted);  // -inf weighs nothing
  }
  part.sum = WarpSum(part.sum);
  if (kWeighted) part.weighted = WarpSum(part.weighted);
  if (lane == 0) scratch.sum[warp] = part.sum, scratch.weighted[warp] = part.weighted;
  __syncthreads();
  part.sum = part.weighted = 0;
#pragma unroll
  for (int w = 0; w < kWarps; ++w) {
    part.sum = __fadd_rn(part.sum, scratch.sum[w]);
    if (kWeighted) part.weighted = __fadd_rn(part.weighted, scratch.weighted[w]);
  }
  return part;
}

// Adds the slices of a row in order; a whole warp calls it, and each lane scales a slice.
__device__ Part AddSlices(const Part* parts, int slices) {
  const int lane = threadIdx.x % 32;
  Part total{-INFINITY, 0, 0};
  for (int s = lane; s < slices; s += 32) total.max = fmaxf(total.max, parts[s].max);
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) {
    total.max = fmaxf(total.max, __shfl_xor_sync(~0u, total.max, offset));
  }
  for (int from = 0; from < slices; from += 32) {
    const int count = min(32, slices - from);
    const Part mine = lane < count ? parts[from + lane] : Part{-INFINITY, 0, 0};
    const float scale = mine.max == -INFINITY ? 0.0f : expf(__fsub_rn(mine.max, total.max));
    for (int s = 0; s < count; ++s) {
      const float scale_s = __shfl_sync(~0u, scale, s);
      total.sum = __fmaf_rn(__shfl_sync(~0u, mine.sum, s), scale_s, total.sum);
      total.weighted = __fmaf_rn(__shfl_sync(~0u, mine.weighted, s), scale_s, total.weighted);
    }
  }
  return total;
}

__device__ float LogSumExp(const Part& total) { return __fadd_rn(total.max, logf(total.sum)); }

constexpr int kStatsBlocks = 3;  // of a processor, where slices are reduced

constexpr int kRowsPerBlock = 8;  // a warp for each row, where the slices of a row are added

__device__ int64_t RowOfWarp() {
  return blockIdx.x * static_cast<int64_t>(kRowsPerBlock) + threadIdx.x / 32;
}

int Slices(int64_t vocabulary) {
  return static_cast<int>((vocabulary + kVocabularySlice - 1) / kVocabularySlice);
}

// Every gridDim.x-th slice of a row, one after another: the next one is fetched while one is reduced.
__global__ void __launch_bounds__(kThreads, kStatsBlocks) SliceStatsKernel(LogitStats r, Part* parts, int slices) {
  __shared__ SliceScratch scratch;
  const bf16* row = static_cast<const bf16*>(r.logits) + blockIdx.y * r.stride;
  RawZ next;
  auto fetch = [&](int slice) {
    if (slice >= slices) return;
    next.Load(row, Aligned(r.stride), slice * static_cast<int>(kVocabularySlice) + threadIdx.x * kPerThread, static_cast<int>(r.vocabulary));
  };
  fetch(static_cast<int>(blockIdx.x));
  for (int slice = static_cast<int>(blockIdx.x); slice < slices; slice += static_cast<int>(gridDim.x)) {
    float z[kPerThread];
    next.Over(r.temperature, z);
    fetch(slice + static_cast<int>(gridDim.x));
    const Part part = ReduceSlice<true>(z, scratch);
    if (threadIdx.x == 0) parts[static_cast<int64_t>(blockIdx.y) * slices + slice] = part;
  }
}

__global__ void RowStatsKernel(LogitStats r, const Part* parts, int slices) {
  const int64_t row = RowOfWarp();
  if (row >= r.rows) return;
  const Part total = AddSlices(parts + row * slices, slices);
  if (threadIdx.x % 32 != 0) return;
  const float lse = LogSumExp(total);
  const float logit =
      __bfloat162float(static_cast<const bf16*>(r.logits)[row * r.stride + r.target[row]]);
  r.logprob[row] = __fsub_rn(__fdiv_rn(logit, r.temperature), lse);
  if (r.entropy != nullptr) r.entropy[row] = lse - total.weighted / total.sum;
  if (r.lse != nullptr) r.lse[row] = lse;
}

__global__ void LogitGradientKernel(LogitGradient g) {
  const int64_t row = blockIdx.y;
  const int first = static_cast<int>(blockIdx.x * kVocabularySlice);
  bf16* logits = static_cast<bf16*>(g.logits) + row * g.stride;
  const float lse = g.lse[row], d = g.dlogprob == nullptr ? 0.0f : g.dlogprob[row];
  const float d_entropy = g.dentropy == nullptr ? 0.0f : g.dentropy[row];
  const float entropy = g.dentropy == nullptr ? 0.0f : g.entropy[row];
  const int target = static_cast<int>(g.target[row]), vocabulary = static_cast<int>(g.vocabulary);
  const float by_temperature = 1 / g.temperature, by_cap = g.softcap > 0 ? 1 / g.softcap : 0.0f;
  auto gradient = [&](float logit, int column) {
    const float log_p = logit * by_temperature - lse, p = ExpOf(log_p), of_cap = logit * by_cap;
    float dz = -p * (d + d_entropy * (log_p + entropy));
    if (column == target) dz += d;
    return dz * (1 - of_cap * of_cap) * by_temperature;
  };
#pragma unroll
  for (int i = 0; i < kPerThread / 8; ++i) {
    const int column = first + (i * kThreads + threadIdx.x) * 8;
    if (column + 8 <= vocabulary) {
      float x[8];
      Load8(logits + column, x);
#pragma unroll
      for (int j = 0; j < 8; ++j) x[j] = gradient(x[j], column + j);
      Store8(x, logits + column);
    } else {
      for (int j = column; j < vocabulary; ++j) {
        logits[j] = __float2bfloat16_rn(gradient(__bfloat162float(logits[j]), j));
      }
    }
  }
}

__global__ void CapLogitsKernel(bf16* logits, int64_t count, float cap) {
  const int64_t at = (blockIdx.x * static_cast<int64_t>(kThreads) + threadIdx.x) * 8;
  if (at >= count) return;
  float x[8];
  Load8(logits + at, x);
#pragma unroll
  for (float& logit : x) logit = cap * tanhf(logit / cap);
  Store8(x, logits + at);
}

// Philox4x32-10 at counter {position, index, 0, 0}; common/random/philox.h has the plain form.
__device__ uint4 Philox(uint64_t key, uint32_t position, uint32_t index) {
  uint4 c = {position, index, 0, 0};
  uint32_t k0 = static_cast<uint32_t>(key), k1 = static_cast<uint32_t>(key >> 32);
#pragma unroll
  for (int round = 0; round < 10; ++round) {
    const uint32_t high0 = __umulhi(0xD2511F53u, c.x), low0 = 0xD2511F53u * c.x;
    const uint32_t high1 = __umulhi(0xCD9E8D57u, c.z), low1 = 0xCD9E8D57u * c.z;
    c = {high1 ^ c.y ^ k0, low1, high0 ^ c.w ^ k1, low0};
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return c;
}

__device__ float GumbelOf(uint32_t word) {
  constexpr float kBelowOne = 1.0f - 0x1p-24f;
  const float u = fminf(__fmul_rn(__fadd_rn(static_cast<float>(word), 0.5f), 0x1p-32f), kBelowOne);
  return -logf(-log1pf(-u));
}

// GumbelOf to within kNearlyGumbel, by the hardware's logarithm: enough to say which columns cannot win.
constexpr float kNearlyGumbel = 1e-3f;
__device__ float NearlyGumbelOf(uint32_t word) {
  constexpr float kBelowOne = 1.0f - 0x1p-24f;
  const float u = fminf(__fmul_rn(__fadd_rn(static_cast<float>(word), 0.5f), 0x1p-32f), kBelowOne);
  const float exponential = u < 0x1p-6f ? u * (1 + u * (0.5f + u * (1.0f / 3))) : -__logf(1 - u);
  return -__logf(exponential);
}

__device__ Candidate Better(Candidate a, Candidate b) {
  const bool second = b.score > a.score || (b.score == a.score && b.column < a.column);
  return second ? b : a;
}

__device__ Candidate BetterOfWarp(Candidate mine) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) {
    mine = Better(mine, {__shfl_xor_sync(~0u, mine.score, offset),
                         __shfl_xor_sync(~0u, mine.z, offset),
                         __shfl_xor_sync(~0u, mine.column, offset)});
  }
  return mine;
}

struct DrawScratch {
  Part* tempered;
  Part* untempered;
  Candidate* candidate;
};

DrawScratch CutDraw(void* scratch, int64_t parts) {
  auto* tempered = static_cast<Part*>(scratch);
  return {tempered, tempered + parts, reinterpret_cast<Candidate*>(tempered + 2 * parts)};
}

// The word of Philox that a thread's column `i`, counted from `first`, takes: four words serve columns eight apart.
__device__ uint32_t WordOf(const uint4& words, int i) {
  const uint32_t word[4] = {words.x, words.y, words.z, words.w};
  return word[i / 8];
}

// Nearly every column is ruled out by a cheap noise that is nearly right; those within its error of the best are
// compared by the right one.
__global__ void SliceDrawKernel(TokenDraw r, DrawScratch s) {
  __shared__ SliceScratch slice_scratch;
  __shared__ float scratch[32];
  __shared__ Candidate best_of_warp[kThreads / 32];
  const DrawRow row = r.row[blockIdx.y];
  const bool greedy = row.temperature == 0;
  const float temperature = greedy ? 1.0f : row.temperature;
  const int64_t at = blockIdx.y * static_cast<int64_t>(gridDim.x) + blockIdx.x;
  const bf16* logits = static_cast<const bf16*>(r.logits) + blockIdx.y * r.stride;
  const int first = static_cast<int>(blockIdx.x * kVocabularySlice) + threadIdx.x * kPerThread;
  const int vocabulary = static_cast<int>(r.vocabulary);
  float z[kPerThread];
  LoadZ(logits, Aligned(r.stride), first, vocabulary, temperature, z);
  const Part part = ReduceSlice<false>(z, slice_scratch);
  if (threadIdx.x == 0) s.tempered[at] = part;

  float nearly_best = -INFINITY;
#pragma unroll
  for (int lane = 0; lane < 8; ++lane) {
    uint4 words = {};
    if (!greedy) words = Philox(row.key, row.position, static_cast<uint32_t>(first / 4 + lane));
#pragma unroll
    for (int w = 0; w < 4; ++w) {
      const int i = w * 8 + lane;
      if (!greedy) z[i] += NearlyGumbelOf(WordOf(words, i));
      nearly_best = fmaxf(nearly_best, z[i]);
    }
  }
  nearly_best = BlockMax(nearly_best, scratch);
  // Beside the error of the noise, that of adding it.
  const float least = nearly_best - (2 * kNearlyGumbel + 1e-6f * fabsf(nearly_best));
  uint32_t maybe = 0;
#pragma unroll
  for (int i = 0; i < kPerThread; ++i) maybe |= (z[i] >= least && z[i] > -INFINITY ? 1u : 0u) << i;
  Candidate best{-INFINITY, -INFINITY, 0x7fffffff};
  while (maybe != 0) {
    const int i = __ffs(static_cast<int>(maybe)) - 1, column = first + i;
    maybe &= maybe - 1;
    const float mine = __fdiv_rn(__bfloat162float(logits[column]), temperature);
    float score = mine;
    if (!greedy) {
      const uint4 words = Philox(row.key, row.position, static_cast<uint32_t>(first / 4 + i % 8));
      score = __fadd_rn(mine, GumbelOf(WordOf(words, i)));
    }
    best = Better(best, {score, mine, column});
  }
  best = BetterOfWarp(best);
  if (threadIdx.x % 32 == 0) best_of_warp[threadIdx.x / 32] = best;
  __syncthreads();
  if (threadIdx.x == 0) {
    for (int w = 1; w < kThreads / 32; ++w) best = Better(best, best_of_warp[w]);
    s.candidate[at] = best;
  }
  if (r.untempered == nullptr || temperature == 1) return;  // the same at temperature 1
  LoadZ(logits, Aligned(r.stride), first, vocabulary, 1.0f, z);
  const Part untempered = ReduceSlice<false>(z, slice_scratch);
  if (threadIdx.x == 0) s.untempered[at] = untempered;
}

__global__ void RowDrawKernel(TokenDraw r, DrawScratch s, int slices) {
  const int64_t row = RowOfWarp();
  if (row >= r.rows) return;
  const int lane = threadIdx.x % 32;
  Candidate best{-INFINITY, -INFINITY, 0x7fffffff};
  for (int i = lane; i < slices; i += 32) best = Better(best, s.candidate[row * slices + i]);
  best = BetterOfWarp(best);
  const float lse = LogSumExp(AddSlices(s.tempered + row * slices, slices));
  const int64_t token = best.column < r.vocabulary ? best.column : 0;
  if (lane == 0) {
    r.token[row] = token;
    r.logprob[row] = __fsub_rn(best.z, lse);
  }
  if (r.untempered == nullptr) return;
  const float temperature = r.row[row].temperature;
  const Part* parts = temperature == 0 || temperature == 1 ? s.tempered : s.untempered;
  const float untempered_lse = LogSumExp(AddSlices(parts + row * slices, slices));
  if (lane != 0) return;
  const float logit = __bfloat162float(static_cast<const bf16*>(r.logits)[row * r.stride + token]);
  r.untempered[row] = __fsub_rn(logit, untempered_lse);
}

__global__ void PlaceDrawnKernel(int64_t* token, int64_t count, const int64_t* drawn) {
  const int64_t i = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x;
  if (i < count && token[i] < 0) token[i] = drawn[-1 - token[i]];
}

unsigned Blocks(int64_t count, int64_t per_block) {
  return static_cast<unsigned>((count + per_block - 1) / per_block);
}

}  // namespace

int64_t LogitScratchBytes(int64_t rows, int64_t vocabulary) {
  return rows * Slices(vocabulary) * static_cast<int64_t>(2 * sizeof(Part) + sizeof(Candidate));
}

absl::Status ComputeLogitStats(const LogitStats& run, void* stream) {
  if (run.rows == 0) return absl::OkStatus();
  auto* on = static_cast<cudaStream_t>(stream);
  auto* parts = static_cast<Part*>(run.scratch);
  const int slices = Slices(run.vocabulary);
  // Many rows keep all processors at work with a block each.
  const bool many = run.rows >= 8 * kStatsBlocks * DeviceAttribute(cudaDevAttrMultiProcessorCount);
  SliceStatsKernel<<<dim3(many ? 1 : slices, static_cast<unsigned>(run.rows)), kThreads, 0, on>>>(run, parts, slices);
  RowStatsKernel<<<Blocks(run.rows, kRowsPerBlock), 32 * kRowsPerBlock, 0, on>>>(run, parts, slices);
  return LaunchStatus("ComputeLogitStats");
}

absl::Status CapLogits(void* logits, int64_t count, float cap, void* stream) {
  if (count == 0) return absl::OkStatus();
  CapLogitsKernel<<<static_cast<unsigned>((count / 8 + kThreads - 1) / kThreads), kThreads, 0,
                    static_cast<cudaStream_t>(stream)>>>(static_cast<bf16*>(logits), count, cap);
  return LaunchStatus("CapLogits");
}

absl::Status ComputeLogitGradient(const LogitGradient& run, void* stream) {
  if (run.rows == 0) return absl::OkStatus();
  LogitGradientKernel<<<dim3(Slices(run.vocabulary), static_cast<unsigned>(run.rows)), kThreads, 0,
                        static_cast<cudaStream_t>(stream)>>>(run);
  return LaunchStatus("ComputeLogitGradient");
}

absl::Status DrawTokens(const TokenDraw& run, void* stream) {
  if (run.rows == 0) return absl::OkStatus();
  auto* on = static_cast<cudaStream_t>(stream);
  const int slices = Slices(run.vocabulary);
  const DrawScratch scratch = CutDraw(run.scratch, run.rows * slices);
  SliceDrawKernel<<<dim3(slices, static_cast<unsigned>(run.rows)), kThreads, 0, on>>>(run, scratch);
  RowDrawKernel<<<Blocks(run.rows, kRowsPerBlock), 32 * kRowsPerBlock, 0, on>>>(run, scratch, slices);
  return LaunchStatus("DrawTokens");
}

absl::Status PlaceDrawnTokens(int64_t* token, int64_t count, const int64_t* drawn, void* stream) {
  if (count == 0) return absl::OkStatus();
  PlaceDrawnKernel<<<Blocks(count, 128), 128, 0, static_cast<cudaStream_t>(stream)>>>(token, count, drawn);
  return LaunchStatus("PlaceDrawnTokens");
}

}  // namespace rein::kernels

#include "common/kernels/logits.h"

#include <cmath>

#include "common/kernels/bf16_vector.cuh"
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

// This thread's columns of its slice, divided by the temperature; -inf beyond the vocabulary.
__device__ void LoadZ(const bf16* row, int first, int vocabulary, float temperature,
                      float (&z)[kPerThread]) {
#pragma unroll
  for (int i = 0; i < kPerThread; i += 8) {
    const int column = first + i;
    if (column + 8 <= vocabulary) {
      Load8(row + column, z + i);
    } else {
#pragma unroll
      for (int j = 0; j < 8; ++j) {
        z[i + j] = column + j < vocabulary ? __bfloat162float(row[column + j]) : -INFINITY;
      }
    }
#pragma unroll
    for (int j = 0; j < 8; ++j) z[i + j] = __fdiv_rn(z[i + j], temperature);
  }
}

// In every thread.
__device__ Part ReduceSlice(const float (&z)[kPerThread], float* scratch) {
  float max = -INFINITY;
#pragma unroll
  for (int i = 0; i < kPerThread; ++i) max = fmaxf(max, z[i]);
  max = BlockMax(max, scratch);
  Part part{max, 0, 0};
  if (max == -INFINITY) return part;
#pragma unroll
  for (int i = 0; i < kPerThread; ++i) {
    const float p = expf(__fsub_rn(z[i], max));
    part.sum = __fadd_rn(part.sum, p);
    part.weighted = p > 0 ? __fmaf_rn(p, z[i], part.weighted) : part.weighted;
  }
  part.sum = BlockSum(part.sum, scratch);
  part.weighted = BlockSum(part.weighted, scratch);
  return part;
}

// Adds the slices of a row in order.
__device__ Part AddSlices(const Part* parts, int slices) {
  Part total{-INFINITY, 0, 0};
  for (int s = 0; s < slices; ++s) total.max = fmaxf(total.max, parts[s].max);
  for (int s = 0; s < slices; ++s) {
    if (parts[s].max == -INFINITY) continue;
    const float scale = expf(__fsub_rn(parts[s].max, total.max));
    total.sum = __fmaf_rn(parts[s].sum, scale, total.sum);
    total.weighted = __fmaf_rn(parts[s].weighted, scale, total.weighted);
  }
  return total;
}

__device__ float LogSumExp(const Part& total) { return __fadd_rn(total.max, logf(total.sum)); }

int Slices(int64_t vocabulary) {
  return static_cast<int>((vocabulary + kVocabularySlice - 1) / kVocabularySlice);
}

__global__ void SliceStatsKernel(LogitStats r, Part* parts) {
  __shared__ float scratch[32];
  float z[kPerThread];
  const int first = static_cast<int>(blockIdx.x * kVocabularySlice) + threadIdx.x * kPerThread;
  LoadZ(static_cast<const bf16*>(r.logits) + blockIdx.y * r.stride, first,
        static_cast<int>(r.vocabulary), r.temperature, z);
  const Part part = ReduceSlice(z, scratch);
  if (threadIdx.x == 0) parts[blockIdx.y * gridDim.x + blockIdx.x] = part;
}

__global__ void RowStatsKernel(LogitStats r, const Part* parts, int slices) {
  const int64_t row = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x;
  if (row >= r.rows) return;
  const Part total = AddSlices(parts + row * slices, slices);
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
  auto gradient = [&](float logit, int column) {
    const float log_p = logit / g.temperature - lse, p = __expf(log_p);
    float dz = -p * (d + d_entropy * (log_p + entropy));
    if (column == target) dz += d;
    return dz / g.temperature;
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

__global__ void SliceDrawKernel(TokenDraw r, DrawScratch s) {
  __shared__ float scratch[32];
  __shared__ Candidate best_of_warp[kThreads / 32];
  const DrawRow row = r.row[blockIdx.y];
  const bool greedy = row.temperature == 0;
  const int64_t at = blockIdx.y * static_cast<int64_t>(gridDim.x) + blockIdx.x;
  const bf16* logits = static_cast<const bf16*>(r.logits) + blockIdx.y * r.stride;
  const int first = static_cast<int>(blockIdx.x * kVocabularySlice) + threadIdx.x * kPerThread;
  const int vocabulary = static_cast<int>(r.vocabulary);
  float z[kPerThread];
  if (r.untempered != nullptr) {
    LoadZ(logits, first, vocabulary, 1.0f, z);
    const Part part = ReduceSlice(z, scratch);
    if (threadIdx.x == 0) s.untempered[at] = part;
  }
  LoadZ(logits, first, vocabulary, greedy ? 1.0f : row.temperature, z);
  const Part part = ReduceSlice(z, scratch);
  if (threadIdx.x == 0) s.tempered[at] = part;

  Candidate best{-INFINITY, -INFINITY, 0x7fffffff};
#pragma unroll
  for (int lane = 0; lane < 8; ++lane) {
    uint4 words = {};
    if (!greedy && first < vocabulary) {
      words = Philox(row.key, row.position, static_cast<uint32_t>(first / 4 + lane));
    }
    const uint32_t word[4] = {words.x, words.y, words.z, words.w};
#pragma unroll
    for (int w = 0; w < 4; ++w) {
      const float mine = z[w * 8 + lane];
      if (mine == -INFINITY) continue;
      const float score = greedy ? mine : __fadd_rn(mine, GumbelOf(word[w]));
      best = Better(best, {score, mine, first + w * 8 + lane});
    }
  }
  best = BetterOfWarp(best);
  if (threadIdx.x % 32 == 0) best_of_warp[threadIdx.x / 32] = best;
  __syncthreads();
  if (threadIdx.x != 0) return;
  for (int w = 1; w < kThreads / 32; ++w) best = Better(best, best_of_warp[w]);
  s.candidate[at] = best;
}

__global__ void RowDrawKernel(TokenDraw r, DrawScratch s, int slices) {
  const int64_t row = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x;
  if (row >= r.rows) return;
  Candidate best = s.candidate[row * slices];
  for (int i = 1; i < slices; ++i) best = Better(best, s.candidate[row * slices + i]);
  const float lse = LogSumExp(AddSlices(s.tempered + row * slices, slices));
  r.token[row] = best.column < r.vocabulary ? best.column : 0;
  r.logprob[row] = __fsub_rn(best.z, lse);
  if (r.untempered == nullptr) return;
  const float logit = __bfloat162float(static_cast<const bf16*>(r.logits)[row * r.stride + r.token[row]]);
  r.untempered[row] = __fsub_rn(logit, LogSumExp(AddSlices(s.untempered + row * slices, slices)));
}

__global__ void PlaceDrawnKernel(int64_t* token, int64_t count, const int64_t* drawn) {
  const int64_t i = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x;
  if (i < count && token[i] < 0) token[i] = drawn[-1 - token[i]];
}

unsigned RowBlocks(int64_t rows) { return static_cast<unsigned>((rows + 63) / 64); }

}  // namespace

int64_t LogitScratchBytes(int64_t rows, int64_t vocabulary) {
  return rows * Slices(vocabulary) * static_cast<int64_t>(2 * sizeof(Part) + sizeof(Candidate));
}

absl::Status ComputeLogitStats(const LogitStats& run, void* stream) {
  if (run.rows == 0) return absl::OkStatus();
  auto* on = static_cast<cudaStream_t>(stream);
  auto* parts = static_cast<Part*>(run.scratch);
  const int slices = Slices(run.vocabulary);
  SliceStatsKernel<<<dim3(slices, static_cast<unsigned>(run.rows)), kThreads, 0, on>>>(run, parts);
  RowStatsKernel<<<RowBlocks(run.rows), 64, 0, on>>>(run, parts, slices);
  return LaunchStatus("ComputeLogitStats");
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
  RowDrawKernel<<<RowBlocks(run.rows), 64, 0, on>>>(run, scratch, slices);
  return LaunchStatus("DrawTokens");
}

absl::Status PlaceDrawnTokens(int64_t* token, int64_t count, const int64_t* drawn, void* stream) {
  if (count == 0) return absl::OkStatus();
  PlaceDrawnKernel<<<RowBlocks(count), 64, 0, static_cast<cudaStream_t>(stream)>>>(token, count, drawn);
  return LaunchStatus("PlaceDrawnTokens");
}

}  // namespace rein::kernels

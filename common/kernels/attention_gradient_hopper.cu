#include "common/kernels/attention_gradient_hopper.h"

#include <algorithm>

#include "common/kernels/attention_gradient_keys.cuh"
#include "common/kernels/attention_gradient_queries.cuh"
#include "common/kernels/attention_launch.cuh"
#include "common/kernels/hopper.h"
#include "common/kernels/launch_status.h"

namespace rein::kernels {
namespace {

using namespace gradient;

// One warp: counts the tiles of each sequence.
__global__ void CountTilesKernel(Ragged query, Ragged key, int sequences, bool causal, int32_t* tile_begin) {
  int before = 0;
  for (int first = 0; first < sequences; first += 32) {
    const int b = first + threadIdx.x;
    const int q = b < sequences ? TilesOf(LengthOf(query, b)) : 0, k = b < sequences ? TilesOf(LengthOf(key, b)) : 0;
    const int own = causal ? q * (q + 1) / 2 : q * k;
    int up_to = own;
#pragma unroll
    for (int distance = 1; distance < 32; distance *= 2) {
      const int other = __shfl_up_sync(~0u, up_to, distance);
      if (threadIdx.x >= distance) up_to += other;
    }
    if (b < sequences) tile_begin[b] = before + up_to - own;
    before += __shfl_sync(~0u, up_to, 31);
  }
}

ScoreGradients ScoresOf(const AttentionBackward& run) {
  return {run.tokens, run.sequences, run.longest_query, run.longest_key, run.causal, run.heads / run.kv_heads, run.kv_heads};
}

template <int kDim>
absl::Status Launch(const AttentionBackward& run, const float* delta, const std::function<void*(int64_t bytes)>& allocate, void* stream) {
  using K = KeyLayout<kDim>;
  using Q = QueryLayout<kDim>;
  auto* of_keys = run.rule.softcap > 0        ? KeyGradientHopperKernel<kDim, ScoreKind::kCapped>
                  : run.rule.alibi != nullptr ? KeyGradientHopperKernel<kDim, ScoreKind::kSloped>
                                              : KeyGradientHopperKernel<kDim, ScoreKind::kPlain>;
  auto* of_queries = QueryGradientHopperKernel<kDim>;
  absl::Status status = Widen("AttendBackward", of_keys, K::kBytes);
  if (status.ok()) status = Widen("AttendBackward", of_queries, Q::kBytes);
  if (!status.ok()) return status;
  Maps maps{};
  auto describe = [&](const void* matrix, int64_t heads, int64_t stride, CUtensorMap* map) {
    if (status.ok()) status = DescribeMatrix("AttendBackward", matrix, run.tokens, heads * kDim, stride, kRows, kDim / kBlockColumns, map);
  };
  describe(run.q, run.heads, run.q_stride, &maps.query);
  describe(run.dout, run.heads, run.heads * kDim, &maps.dout);
  describe(run.k, run.kv_heads, run.k_stride, &maps.key);
  describe(run.v, run.kv_heads, run.v_stride, &maps.value);
  if (!status.ok()) return status;
  auto* cuda = static_cast<cudaStream_t>(stream);
  auto* tile_begin = static_cast<int32_t*>(allocate(4 * run.sequences));
  CountTilesKernel<<<1, 32, 0, cuda>>>(run.query, run.key, static_cast<int>(run.sequences), run.causal, tile_begin);
  const ScoreGradients scores = ScoresOf(run);
  const int64_t at_once = scores.heads_at_once;
  const int64_t key_blocks = (run.longest_key + kGroups * kRows - 1) / (kGroups * kRows), blocks = at_once * run.sequences * key_blocks;
  Gradient g{run, delta, tile_begin, static_cast<bf16*>(allocate(scores.bytes()))};
  g.group = static_cast<int>(run.heads / run.kv_heads);
  g.splits = static_cast<int>(std::clamp<int64_t>(2 * DeviceAttribute(cudaDevAttrMultiProcessorCount) / blocks, 1, TilesOf(static_cast<int>(run.longest_query))));
  if (g.splits > 1) g.parts = static_cast<float*>(allocate(g.splits * blocks * 2 * kGroups * kRows * kDim * 4));
  for (int64_t head = 0; head < run.kv_heads; head += at_once) {
    g.first_kv_head = static_cast<int>(head);
    g.kv_heads = static_cast<int>(std::min(at_once, run.kv_heads - head));
    const auto sequences = static_cast<unsigned>(g.kv_heads * run.sequences), rows = static_cast<unsigned>(key_blocks);
    of_keys<<<dim3(sequences, rows, static_cast<unsigned>(g.splits)), kThreads, K::kBytes, cuda>>>(g, maps);
    if (g.splits > 1) AddPartsKernel<kDim><<<dim3(sequences, rows), 512, 0, cuda>>>(g);
    const auto query_blocks = static_cast<unsigned>((TilesOf(static_cast<int>(run.longest_query)) + Q::kTiles - 1) / Q::kTiles);
    of_queries<<<dim3(sequences * static_cast<unsigned>(g.group), query_blocks), Q::kThreads, Q::kBytes, cuda>>>(g, maps);
  }
  return LaunchStatus("AttendBackward");
}

}  // namespace

bool HopperBackwardTakes(const AttentionBackward& run) {
  return HopperBackwardTakes(run.head_dim, run.value_dim) && IsHopper() && ScoresOf(run).fit();
}

absl::Status AttendBackwardHopper(const AttentionBackward& run, const float* delta, const std::function<void*(int64_t bytes)>& allocate,
                                  void* stream) {
  if (run.longest_query == 0 || run.longest_key == 0) return absl::OkStatus();
  return run.head_dim == 64 ? Launch<64>(run, delta, allocate, stream) : Launch<128>(run, delta, allocate, stream);
}

}  // namespace rein::kernels

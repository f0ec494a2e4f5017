#include "common/kernels/split_heads.h"

#include "common/kernels/launch_overlap.cuh"
#include "common/kernels/launch_status.h"

namespace rein::kernels {
namespace {

constexpr int kThreads = 256;

// Where 16-byte piece `piece` of the joint rows stands apart; null where nobody wants it.
__device__ uint4* PieceOf(const QkNormRope& r, void* q, void* k, void* v, uint32_t piece) {
  const auto of_head = static_cast<uint32_t>(r.head_dim / 8), per_token = static_cast<uint32_t>(r.heads + 2 * r.kv_heads);
  const uint32_t unit = piece / of_head, token = unit / per_token, head = unit % per_token;
  const auto heads = static_cast<uint32_t>(r.heads), kv_heads = static_cast<uint32_t>(r.kv_heads);
  const bool is_q = head < heads, is_v = head >= heads + kv_heads;
  void* base = is_q ? q : is_v ? v : k;
  if (base == nullptr) return nullptr;
  const int64_t row = r.slot != nullptr && !is_q ? r.slot[token] : token;
  const int64_t at = is_q ? row * heads + head : row * kv_heads + head - heads - (is_v ? kv_heads : 0);
  return static_cast<uint4*>(base) + at * of_head + piece % of_head;
}

__global__ void SplitKernel(QkNormRope r, uint32_t pieces) {
  AwaitLast();
  LetNextBegin();
  const uint32_t piece = blockIdx.x * blockDim.x + threadIdx.x;
  if (piece >= pieces) return;
  uint4* to = PieceOf(r, r.q, r.k, r.v, piece);
  if (to != nullptr) *to = static_cast<const uint4*>(r.qkv)[piece];
}

__global__ void JoinKernel(QkNormRopeGradient g, uint32_t pieces) {
  const uint32_t piece = blockIdx.x * blockDim.x + threadIdx.x;
  if (piece >= pieces) return;
  static_cast<uint4*>(g.dqkv)[piece] =
      *PieceOf(g.forward, const_cast<void*>(g.dq), const_cast<void*>(g.dk), const_cast<void*>(g.dv), piece);
}

uint32_t Pieces(const QkNormRope& run) {
  return static_cast<uint32_t>(run.tokens * (run.heads + 2 * run.kv_heads) * run.head_dim / 8);
}

dim3 Blocks(uint32_t pieces) { return dim3((pieces + kThreads - 1) / kThreads); }

}  // namespace

absl::Status SplitHeads(const QkNormRope& run, void* stream) {
  const uint32_t pieces = Pieces(run);
  LaunchOverlapping(SplitKernel, Blocks(pieces), kThreads, 0, stream, run, pieces);
  return LaunchStatus("QkNormRope");
}

absl::Status JoinHeads(const QkNormRopeGradient& run, void* stream) {
  const uint32_t pieces = Pieces(run.forward);
  JoinKernel<<<Blocks(pieces), kThreads, 0, static_cast<cudaStream_t>(stream)>>>(run, pieces);
  return LaunchStatus("QkNormRopeGradient");
}

}  // namespace rein::kernels

#include "common/kernels/latent_plan.cuh"

#include "common/kernels/attention_tile.cuh"
#include "common/kernels/bf16_vector.cuh"
#include "common/kernels/launch_overlap.cuh"
#include "common/kernels/launch_status.h"

namespace rein::kernels {
namespace {

// One block of so many threads, a sequence for each.
constexpr int kPlanThreads = 512;

// The sum of `own` of all threads up to and with this one; `total`: of all.
__device__ int SumUpTo(int own, int& total) {
  __shared__ int of_warp[kPlanThreads / 32];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
#pragma unroll
  for (int offset = 1; offset < 32; offset *= 2) {
    const int before = __shfl_up_sync(~0u, own, offset);
    if (lane >= offset) own += before;
  }
  __syncthreads();
  if (lane == 31) of_warp[warp] = own;
  __syncthreads();
  total = 0;
  int before = 0;
  for (int w = 0; w < kPlanThreads / 32; ++w) {
    if (w == warp) before = total;
    total += of_warp[w];
  }
  return before + own;
}

// Less is left to add up where runs stay whole, but processors end at about one time where the last items are small: the
// first item of a run holds no more than a processor's share of half its sequence and of those behind it. The chunks behind
// come after all these.
__global__ void PlanLatentKernel(LatentPlan plan, LatentScratch s, int processors) {
  const int sequences = static_cast<int>(plan.sequences), most = static_cast<int>(s.most_items);
  auto chunks_of = [&](int b) { return b < sequences ? (plan.context[b] + kLatentChunk - 1) / kLatentChunk : 0; };
  int all_chunks = 0, all_runs = 0;
  for (int b = threadIdx.x; b < sequences; b += kPlanThreads) {
    all_chunks += chunks_of(b);
    all_runs += (chunks_of(b) + kLatentRun - 1) / kLatentRun;
  }
  SumUpTo(all_chunks, all_chunks);
  SumUpTo(all_runs, all_runs);
  int chunks_before = 0, runs_before = 0, items_before = 0, split_before = 0;
  for (int first = 0; first < sequences; first += kPlanThreads) {
    const int b = first + threadIdx.x, context = b < sequences ? plan.context[b] : 0, chunks = chunks_of(b);
    int chunks_here, runs_here, items_here, split_here;
    const int left = all_chunks - (chunks_before + SumUpTo(chunks, chunks_here)) + (chunks + 1) / 2;
    const int share = (left * LatentParts(plan.heads) + processors - 1) / processors, together = max(1, min(share, kLatentRun));
    const int runs = (chunks + kLatentRun - 1) / kLatentRun, of_run = 1 + kLatentRun - together;
    const int items = chunks / kLatentRun * of_run + (chunks % kLatentRun == 0 ? 0 : 1 + max(0, chunks % kLatentRun - together));
    int run_at = runs_before + SumUpTo(runs, runs_here) - runs;
    int begin = items_before + SumUpTo(items, items_here) - items;
    int single_at = all_runs + begin - run_at;
    const bool split = b < sequences && items != 1;
    const int split_at = split_before + SumUpTo(split, split_here) - 1;
    if (split) s.split[split_at] = b;
    if (b < sequences) s.sums[b] = {min(begin, most), min(begin + items, most), of_run};
    for (int run = 0; run < runs; ++run) {
      const int run_end = min(chunks, (run + 1) * kLatentRun);
      for (int chunk = run * kLatentRun; chunk < run_end; ++begin) {
        const bool leads = chunk == run * kLatentRun;
        const int count = leads ? min(together, run_end - chunk) : 1, at = leads ? run_at++ : single_at++, first_key = chunk * kLatentChunk;
        if (at < most) s.item[at] = {b, first_key, min(context - first_key, count * kLatentChunk), split ? min(begin, most - 1) : -1};
        chunk += count;
      }
    }
    chunks_before += chunks_here;
    runs_before += runs_here;
    items_before += items_here;
    split_before += split_here;
  }
  if (threadIdx.x == 0) *s.counts = {min(items_before, most), split_before, 0};
  __threadfence();  // what decodes reads it before it awaits the launch before itself
}

// A block adds up a head of a split sequence at a time, each thread four columns of it.
constexpr int kAddThreads = kLatentValueDim / 4, kAddBlocks = 7;  // blocks: of a processor

__global__ void __launch_bounds__(kAddThreads, kAddBlocks) AddSumsKernel(__nv_bfloat16* out, LatentPlan plan, LatentScratch s) {
  const int heads = static_cast<int>(plan.heads), rows = __ldcg(&s.counts->split) * heads;
  struct Row {
    int sequence, begin, end, of_run;
  };
  auto load = [&](int row) -> Row {
    if (row >= rows) return {};
    const int b = __ldcg(s.split + row / heads);
    return {b, __ldcg(&s.sums[b].begin), __ldcg(&s.sums[b].end), __ldcg(&s.sums[b].of_run)};
  };
  Row next = load(blockIdx.x);
  AwaitLast();
  LetNextBegin();
  if (blockIdx.x == 0 && threadIdx.x == 0) s.counts->taken = 0;
  for (int row = blockIdx.x; row < rows; row += gridDim.x) {
    const Row own = next;
    next = load(row + gridDim.x);
    const int head = row % heads;
    RowTotal<4> total, run;
    int run_end = own.begin + own.of_run;
    constexpr int kAtOnce = 8;  // are loaded before they are added
    for (int first = own.begin; first < own.end; first += kAtOnce) {
      float part[kAtOnce][4], part_max[kAtOnce], part_sum[kAtOnce];
#pragma unroll
      for (int a = 0; a < kAtOnce; ++a) {
        if (first + a >= own.end) continue;
        const int64_t at = static_cast<int64_t>(first + a) * heads + head;
        part_max[a] = s.max[at];
        part_sum[a] = s.sum[at];
        *reinterpret_cast<float4*>(part[a]) = reinterpret_cast<const float4*>(s.out + at * kLatentValueDim)[threadIdx.x];
      }
#pragma unroll
      for (int a = 0; a < kAtOnce; ++a) {
        if (first + a >= own.end) continue;
        if (first + a == run_end) {
          total.Add(run.max, run.sum, run.out);
          run = {};
          run_end += own.of_run;
        }
        run.Add(part_max[a], part_sum[a], part[a]);
      }
    }
    total.Add(run.max, run.sum, run.out);
    auto output = [&](int i) { return own.begin < own.end ? total.Output(i) : 0.0f; };
    reinterpret_cast<uint2*>(out + (static_cast<int64_t>(own.sequence) * heads + head) * kLatentValueDim)[threadIdx.x] =
        make_uint2(PackBf16(output(0), output(1)), PackBf16(output(2), output(3)));
  }
}

}  // namespace

int64_t LatentScratchBytes(const LatentPlan& plan) {
  const LatentScratch cut = CutLatentScratch(nullptr, plan);
  return reinterpret_cast<int64_t>(cut.out + cut.most_items * plan.heads * kLatentValueDim);
}

absl::Status PlanLatentDecode(const LatentPlan& plan, void* scratch, void* stream) {
  if (plan.sequences == 0) return absl::OkStatus();
  PlanLatentKernel<<<1, kPlanThreads, 0, static_cast<cudaStream_t>(stream)>>>(plan, CutLatentScratch(scratch, plan),
                                                                             DeviceAttribute(cudaDevAttrMultiProcessorCount));
  return LaunchStatus("PlanLatentDecode");
}

void AddLatentSums(void* out, const LatentPlan& plan, const LatentScratch& scratch, void* stream) {
  const auto blocks = static_cast<unsigned>(
      std::min<int64_t>(plan.sequences * plan.heads, kAddBlocks * DeviceAttribute(cudaDevAttrMultiProcessorCount)));
  LaunchOverlapping(AddSumsKernel, dim3(blocks), kAddThreads, 0, stream, static_cast<__nv_bfloat16*>(out), plan, scratch);
}

}  // namespace rein::kernels

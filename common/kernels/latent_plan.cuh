// Between latent_plan.cu, which lists the items of a step and adds up what they leave, and latent_decode.cu, which walks over
// them.

#pragma once

#include <algorithm>
#include <cstdint>

#include "common/kernels/hopper.h"
#include "common/kernels/latent_decode.h"

namespace rein::kernels {

inline constexpr int kLatentRows = 16;  // heads of an item

struct LatentItem {
  int32_t sequence, first_key, keys;
  int32_t sums;  // where its own go; -1: it is all of its sequence, and writes the output
};

struct LatentCounts {
  int32_t items, split;  // items; sequences whose output is to be added up
  int32_t taken;         // by blocks that were done with their first one; 0 between launches
};

// Where those of a sequence's runs are, in order: `of_run` for each but the last, which may have less.
struct LatentSums {
  int32_t begin, end, of_run;
};

// The items of a step, and what they leave.
struct LatentScratch {
  LatentCounts* counts;
  LatentSums* sums;    // [B]
  int32_t* split;      // [B]: sequences
  LatentItem* item;    // [I]
  float* max;          // [I, H]
  float* sum;          // [I, H]
  float* out;          // [I, H, kLatentValueDim]
  int64_t most_items;  // I
};

__host__ __device__ inline int LatentParts(int64_t heads) { return static_cast<int>(heads + kLatentRows - 1) / kLatentRows; }

inline LatentScratch CutLatentScratch(void* scratch, const LatentPlan& plan) {
  auto aligned = [](int64_t n) { return (n + 63) / 64 * 64; };
  LatentScratch cut;
  // Runs that are whole, and what PlanLatentKernel() takes apart near the end.
  const int64_t apart = 2 * kLatentRun * (DeviceAttribute(cudaDevAttrMultiProcessorCount) / LatentParts(plan.heads) + 1);
  cut.most_items = std::min(plan.most_chunks, plan.most_chunks / kLatentRun + plan.sequences + apart);
  cut.counts = static_cast<LatentCounts*>(scratch);
  cut.sums = reinterpret_cast<LatentSums*>(static_cast<int32_t*>(scratch) + 64);
  cut.split = reinterpret_cast<int32_t*>(cut.sums + aligned(plan.sequences));
  cut.item = reinterpret_cast<LatentItem*>(cut.split + aligned(plan.sequences));
  cut.max = reinterpret_cast<float*>(cut.item + aligned(cut.most_items));
  cut.sum = cut.max + aligned(cut.most_items * plan.heads);
  cut.out = cut.sum + aligned(cut.most_items * plan.heads);
  return cut;
}

// After the items' kernel: what its sums, of split sequences, amount to. Errors are told by LaunchStatus().
void AddLatentSums(void* out, const LatentPlan& plan, const LatentScratch& scratch, void* stream);

}  // namespace rein::kernels

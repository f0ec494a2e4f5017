// Prefill attention by Hopper's warpgroup products (wgmma, sm_90a): the same sums in the same order as
// AddTile() of attention_tile.cuh, so the same bits, at a multiple of its speed.

#pragma once

#include "common/kernels/attention.h"

namespace rein::kernels {

// Whether the current device has it, for these widths of a head and this rule: of different widths scores are neither capped nor shifted.
bool HopperPrefillTakes(int64_t head_dim, int64_t value_dim, const ScoreRule& rule);
absl::Status AttendPrefillHopper(const AttentionForward& run, int64_t longest, void* stream);

}  // namespace rein::kernels

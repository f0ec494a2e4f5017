// What cuDNN wants to know of packed sequences: the length of each, and where it begins in each tensor.

#pragma once

#include <cstdint>

#include "absl/status/status.h"

namespace rein::kernels {

// Ranges of packed tokens, on the device.
struct Ragged {
  const int32_t* begin = nullptr;   // [B], or [B + 1] without lengths
  const int32_t* length = nullptr;  // [B]; null: each range ends where the next begins
};

inline constexpr int kRaggedTensors = 8;

// Lengths [padded], zeros behind B; and for each of kRaggedTensors strides offset[b] = begin * stride, [padded + 1]
// each, one behind the other, where ranges behind B begin at the last one's end. of_keys[i]: tensor i has keys' tokens.
absl::Status RaggedOffsets(const Ragged& query, const Ragged& key, int64_t sequences, int64_t padded,
                           const int64_t (&stride)[kRaggedTensors], const bool (&of_keys)[kRaggedTensors],
                           int32_t* query_length, int32_t* key_length, int32_t* offset, void* stream);

}  // namespace rein::kernels

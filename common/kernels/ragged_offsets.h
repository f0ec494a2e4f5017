// What cuDNN wants to know of packed sequences: the length of each, and where it begins in each tensor.

#pragma once

#include <cstdint>

#include "absl/status/status.h"

namespace rein::kernels {

inline constexpr int kRaggedTensors = 6;

// From begin [B + 1]: length [padded], zeros behind B; and for each of kRaggedTensors strides
// offset[i][b] = begin[min(b, B)] * stride[i], [padded + 1] each, one behind the other.
absl::Status RaggedOffsets(const int32_t* begin, int64_t sequences, int64_t padded,
                           const int64_t (&stride)[kRaggedTensors], int32_t* length, int32_t* offset,
                           void* stream);

}  // namespace rein::kernels

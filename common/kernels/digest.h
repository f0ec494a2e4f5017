// The digest of common/weights/digest.h, of many byte ranges of one device arena, on the GPU.

#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"

namespace rein::kernels {

struct ByteRange {
  uint64_t offset = 0;  // a multiple of 8 is fastest, a multiple of 2 is needed
  uint64_t size = 0;
};

// `arena` is device memory of the current device; `stream` a cudaStream_t. Blocks until the digests, one
// for each range, are on the host. INTERNAL when CUDA refuses, UNIMPLEMENTED in a build without it.
absl::Status DigestRanges(const void* arena, const std::vector<ByteRange>& ranges, void* stream,
                          std::vector<uint64_t>* digests);

}  // namespace rein::kernels

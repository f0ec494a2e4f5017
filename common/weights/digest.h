// A 64-bit digest of bytes that can be computed in any order and in parallel, on a CPU or a GPU, so that
// both sides of a weight sync agree on what was received.
//
//   digest = mix(size) + sum over 8-byte words w_i of mix(w_i ^ (i * kStride))   (mod 2^64)
//
// mix is the finaliser of splitmix64 (Steele et al., 2014). The tail is padded with zero bytes. It finds
// accidents (a flipped bit, swapped or missing pieces); it is no defence against an adversary.

#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace rein::weights {

uint64_t Digest(const void* bytes, size_t size);

// Digest of a list of digests; the order counts.
uint64_t CombineDigests(const std::vector<uint64_t>& digests);

}  // namespace rein::weights

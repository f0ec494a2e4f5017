#include "common/weights/digest.h"

#include <cstring>

namespace rein::weights {
namespace {

constexpr uint64_t kStride = 0x9E3779B97F4A7C15;

inline uint64_t Mix(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EB;
  return x ^ (x >> 31);
}

}  // namespace

uint64_t Digest(const void* bytes, size_t size) {
  const auto* data = static_cast<const unsigned char*>(bytes);
  uint64_t sum = Mix(size + kStride);
  const size_t words = size / 8;
  for (size_t i = 0; i < words; ++i) {
    uint64_t word;
    std::memcpy(&word, data + 8 * i, 8);
    sum += Mix(word ^ ((i + 1) * kStride));
  }
  if (size % 8 != 0) {
    uint64_t word = 0;
    std::memcpy(&word, data + 8 * words, size % 8);
    sum += Mix(word ^ ((words + 1) * kStride));
  }
  return sum;
}

uint64_t CombineDigests(const std::vector<uint64_t>& digests) {
  return Digest(digests.data(), digests.size() * sizeof(uint64_t));
}

}  // namespace rein::weights

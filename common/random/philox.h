// Philox4x32-10: four random words as a pure function of a 128-bit counter and a 64-bit key.
//
//   PhiloxWords words = Philox({position, sibling, 0, 0}, seed);
//
// Nothing is stored between draws, so a draw depends on its name (counter, key) and never on what
// was drawn before it. Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011; the
// same constants and rounds as Random123, cuRAND and torch.

#pragma once

#include <array>
#include <cstdint>

namespace rein::random {

using PhiloxWords = std::array<uint32_t, 4>;

constexpr PhiloxWords Philox(PhiloxWords counter, uint64_t key) {
  uint32_t key_low = static_cast<uint32_t>(key);
  uint32_t key_high = static_cast<uint32_t>(key >> 32);
  for (int round = 0; round < 10; ++round) {
    uint64_t product0 = uint64_t{0xD2511F53} * counter[0];
    uint64_t product1 = uint64_t{0xCD9E8D57} * counter[2];
    counter = {static_cast<uint32_t>(product1 >> 32) ^ counter[1] ^ key_low,
               static_cast<uint32_t>(product1),
               static_cast<uint32_t>(product0 >> 32) ^ counter[3] ^ key_high,
               static_cast<uint32_t>(product0)};
    key_low += 0x9E3779B9;
    key_high += 0xBB67AE85;
  }
  return counter;
}

constexpr uint64_t Low64(const PhiloxWords& words) { return words[0] | (uint64_t{words[1]} << 32); }

// Derives a key from a key and a name: SplitMix64's finaliser over their sum, so that neighbouring
// seeds and names give unrelated keys.
constexpr uint64_t DeriveKey(uint64_t key, uint64_t name) {
  uint64_t x = key + 0x9E3779B97F4A7C15 * (name + 1);
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EB;
  return x ^ (x >> 31);
}

}  // namespace rein::random

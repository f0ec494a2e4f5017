#include "rollout/sampling/gumbel_noise.h"

#include <algorithm>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include "common/random/philox.h"

namespace rein::rollout {
namespace {

constexpr int64_t kLanes = 8;           // Philox counters that are computed side by side
constexpr int64_t kGroup = 4 * kLanes;  // vocabulary indices that they give
constexpr uint32_t kMultiplier0 = 0xD2511F53, kMultiplier1 = 0xCD9E8D57;
constexpr uint32_t kWeyl0 = 0x9E3779B9, kWeyl1 = 0xBB67AE85;
constexpr int kRounds = 10;

// random::Philox for kLanes counters at once, in a form that the compiler turns into vector code.
__attribute__((target_clones("avx512f", "arch=haswell", "default"))) void PhiloxGroup(
    uint64_t key, uint32_t position, uint32_t first, uint32_t* out) {
  uint32_t c0[kLanes], c1[kLanes], c2[kLanes], c3[kLanes];
  for (int64_t i = 0; i < kLanes; ++i) {
    c0[i] = position;
    c1[i] = first + static_cast<uint32_t>(i);
    c2[i] = c3[i] = 0;
  }
  uint32_t k0 = static_cast<uint32_t>(key), k1 = static_cast<uint32_t>(key >> 32);
  for (int round = 0; round < kRounds; ++round) {
    for (int64_t i = 0; i < kLanes; ++i) {
      uint64_t p0 = uint64_t{kMultiplier0} * c0[i], p1 = uint64_t{kMultiplier1} * c2[i];
      c0[i] = static_cast<uint32_t>(p1 >> 32) ^ c1[i] ^ k0;
      c1[i] = static_cast<uint32_t>(p1);
      c2[i] = static_cast<uint32_t>(p0 >> 32) ^ c3[i] ^ k1;
      c3[i] = static_cast<uint32_t>(p0);
    }
    k0 += kWeyl0;
    k1 += kWeyl1;
  }
  std::copy(c0, c0 + kLanes, out);
  std::copy(c1, c1 + kLanes, out + kLanes);
  std::copy(c2, c2 + kLanes, out + 2 * kLanes);
  std::copy(c3, c3 + kLanes, out + 3 * kLanes);
}

// In (0, 1): small values keep their relative precision, and 1 is never reached.
float Uniform(uint32_t word) {
  constexpr float kBelowOne = 1.0f - 0x1p-24f;
  return std::min((static_cast<float>(word) + 0.5f) * 0x1p-32f, kBelowOne);
}

at::Tensor UniformCpu(const std::vector<const NoiseKey*>& keys, int64_t vocabulary) {
  at::Tensor out_BV = at::empty({static_cast<int64_t>(keys.size()), vocabulary}, at::kFloat);
  float* out = out_BV.mutable_data_ptr<float>();
  at::parallel_for(0, static_cast<int64_t>(keys.size()), 1, [&](int64_t begin, int64_t end) {
    uint32_t words[kGroup];
    for (int64_t b = begin; b < end; ++b) {
      float* row = out + b * vocabulary;
      if (keys[b] == nullptr) {
        std::fill(row, row + vocabulary, 0.5f);
        continue;
      }
      for (int64_t v = 0; v < vocabulary; v += kGroup) {
        PhiloxGroup(keys[b]->key, keys[b]->position, static_cast<uint32_t>(v / 4), words);
        std::transform(words, words + std::min(kGroup, vocabulary - v), row + v, Uniform);
      }
    }
  });
  return out_BV;
}

// The same words by integer tensors of 64 bits, of which the low 32 are used.
at::Tensor UniformDevice(const std::vector<const NoiseKey*>& keys, int64_t vocabulary,
                         at::Device device) {
  constexpr int64_t kMask = 0xFFFFFFFF;
  std::vector<int64_t> position, key0, key1;
  for (const NoiseKey* key : keys) {
    position.push_back(key == nullptr ? 0 : key->position);
    key0.push_back(key == nullptr ? 0 : static_cast<int64_t>(key->key & kMask));
    key1.push_back(key == nullptr ? 0 : static_cast<int64_t>(key->key >> 32));
  }
  const int64_t rows = static_cast<int64_t>(keys.size());
  const int64_t counters = (vocabulary + kGroup - 1) / kGroup * kLanes;
  auto column = [&](const std::vector<int64_t>& values) {
    return at::tensor(values, at::kLong).to(device).unsqueeze(1);
  };
  at::TensorOptions longs = at::TensorOptions(at::kLong).device(device);
  at::Tensor c0 = column(position).expand({rows, counters});
  at::Tensor c1 = at::arange(counters, longs).expand({rows, counters});
  at::Tensor c2 = at::zeros({rows, counters}, longs), c3 = c2;
  at::Tensor k0 = column(key0), k1 = column(key1);
  for (int round = 0; round < kRounds; ++round) {
    at::Tensor p0 = c0.mul(int64_t{kMultiplier0}), p1 = c2.mul(int64_t{kMultiplier1});
    auto high = [](const at::Tensor& p) { return p.bitwise_right_shift(32).bitwise_and(kMask); };
    c0 = high(p1).bitwise_xor(c1).bitwise_xor(k0);
    c2 = high(p0).bitwise_xor(c3).bitwise_xor(k1);
    c1 = p1.bitwise_and(kMask);
    c3 = p0.bitwise_and(kMask);
    k0 = k0.add(int64_t{kWeyl0}).bitwise_and(kMask);
    k1 = k1.add(int64_t{kWeyl1}).bitwise_and(kMask);
  }
  auto lanes = [&](const at::Tensor& c) { return c.view({rows, -1, 1, kLanes}); };
  at::Tensor words = at::cat({lanes(c0), lanes(c1), lanes(c2), lanes(c3)}, 2);
  words = words.view({rows, -1}).narrow(1, 0, vocabulary);
  return words.to(at::kFloat).add_(0.5).mul_(0x1p-32).clamp_max_(1.0 - 0x1p-24);
}

// -log(-log(1 - u)): a winner has a small u, where a float is finest.
at::Tensor Gumbel(at::Tensor uniform_BV, const std::vector<const NoiseKey*>& keys) {
  at::Tensor noise_BV = uniform_BV.neg_().log1p_().neg_().log_().neg_();
  for (size_t b = 0; b < keys.size(); ++b) {
    if (keys[b] == nullptr) noise_BV[static_cast<int64_t>(b)].zero_();
  }
  return noise_BV;
}

}  // namespace

at::Tensor GumbelNoise(const std::vector<const NoiseKey*>& keys, int64_t vocabulary,
                       at::Device device) {
  if (!device.is_cpu()) return GumbelNoiseByTensors(keys, vocabulary, device);
  return Gumbel(UniformCpu(keys, vocabulary), keys);
}

at::Tensor GumbelNoiseByTensors(const std::vector<const NoiseKey*>& keys, int64_t vocabulary,
                                at::Device device) {
  return Gumbel(UniformDevice(keys, vocabulary, device), keys);
}

}  // namespace rein::rollout

#include "rollout/sampling/draw_key.h"

#include "common/random/philox.h"

namespace rein::rollout {
namespace {

// Sets these draws apart from all others that are keyed by the job's seed.
constexpr uint64_t kSamplingKey = 0x73616d706c65;

}  // namespace

uint64_t PhiloxKey(const DrawKey& key) {
  uint64_t derived = random::DeriveKey(key.seed, kSamplingKey);
  for (uint64_t part :
       {key.data_epoch, key.prompt, key.attempt, uint64_t{key.sibling}, uint64_t{key.turn}}) {
    derived = random::DeriveKey(derived, part);
  }
  return derived;
}

}  // namespace rein::rollout

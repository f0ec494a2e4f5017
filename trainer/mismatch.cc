#include "trainer/mismatch.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include <ATen/ATen.h>

#include "common/kernels/exactness.h"
#include "common/models/row_bits.h"

namespace rein::trainer {
namespace {

constexpr double kPromisedInFloat = 1e-3;

}  // namespace

double PromisedMismatch(const models::Decoder& decoder) {
  // A difference in the last bit of a key may round to the next of few numbers.
  if (decoder.dtype() == at::kFloat) return decoder.spec().kv_fp8 ? kNoPromise : kPromisedInFloat;
  const bool exact = decoder.device().is_cuda() && kernels::KeepsBits() && models::KeepsRowBits(decoder.spec());
  return exact ? 0 : std::numeric_limits<double>::infinity();
}

void AddMismatch(const at::Tensor& policy_logprob_N, const PackedTargets& packed,
                 const std::vector<TrainingSequence>& sequences, const std::vector<size_t>& members, double promised,
                 MismatchSums* sums) {
  if (std::none_of(members.begin(), members.end(), [&](size_t i) { return sequences[i].on_policy; })) return;
  const at::Tensor host_N = policy_logprob_N.detach().to(at::kCPU, at::kFloat).contiguous();
  const auto* policy = host_N.const_data_ptr<float>();
  for (size_t m = 0; m < members.size(); ++m) {
    const TrainingSequence& s = sequences[members[m]];
    const int64_t targets = packed.targets_of[m];
    for (int64_t t = 0; s.on_policy && t < targets; ++t) {
      const double difference = std::abs(static_cast<double>(policy[t]) - s.behaviour_logprobs[t]);
      ++sums->compared;
      sums->largest = std::max(sums->largest, difference);
      if (difference <= promised) continue;
      ++sums->beyond;
      if (sums->first.empty()) sums->first.push_back({s.id, t, s.behaviour_logprobs[t], policy[t]});
    }
    policy += targets;
  }
}

}  // namespace rein::trainer

#include "trainer/packed_targets.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include <ATen/ATen.h>

#include "common/nn/sequence_view.h"

namespace rein::trainer {

PackedTargets PackTargets(const std::vector<TrainingSequence>& sequences,
                          const std::vector<size_t>& members) {
  PackedTargets packed;
  for (size_t i : members) {
    const TrainingSequence& s = sequences[i];
    for (size_t t = 1; t < s.token_ids.size(); ++t) {
      if (s.loss_mask[t] == 0) continue;
      packed.source.push_back(static_cast<int64_t>(packed.token.size() + t) - 1);
      packed.target.push_back(s.token_ids[t]);
    }
    packed.token.insert(packed.token.end(), s.token_ids.begin(), s.token_ids.end());
    packed.lengths.push_back(static_cast<int64_t>(s.token_ids.size()));
    packed.targets_of.push_back(s.targets());
  }
  return packed;
}

namespace {

// Hidden states at the packed places `at`.
at::Tensor HiddenAt(const models::Decoder& decoder, const PackedTargets& packed,
                    const std::vector<int64_t>& at, bool recompute, const Routers& routers = nullptr) {
  at::Device device = decoder.device();
  auto on_device = [&](const std::vector<int64_t>& v) {
    return at::tensor(v, at::kLong).to(device);
  };
  at::Tensor hidden_TD = decoder.Hidden(on_device(packed.token),
                                        nn::PackedSequences(packed.lengths, device), recompute, routers);
  return hidden_TD.index_select(0, on_device(at));
}

}  // namespace

nn::TokenLogprobs ForwardTargets(const models::Decoder& decoder, const PackedTargets& packed,
                                 double temperature, bool recompute, const Routers& routers) {
  return decoder.Logprobs(HiddenAt(decoder, packed, packed.source, recompute, routers),
                          at::tensor(packed.target, at::kLong).to(decoder.device()), temperature);
}

at::Tensor ScoreTargets(const models::Decoder& decoder, const PackedTargets& packed,
                        bool recompute) {
  return decoder.Scores(HiddenAt(decoder, packed, packed.source, recompute));
}

at::Tensor ScoreSequences(const models::Decoder& decoder, const PackedTargets& packed,
                          bool recompute, const Routers& routers) {
  std::vector<int64_t> last;
  int64_t end = 0;
  for (int64_t length : packed.lengths) last.push_back((end += length) - 1);
  return decoder.Scores(HiddenAt(decoder, packed, last, recompute, routers));
}

absl::Status SplitTargets(const at::Tensor& figure_N, const PackedTargets& packed,
                          const std::vector<TrainingSequence>& sequences,
                          const std::vector<size_t>& members, const std::string& what,
                          std::vector<std::vector<float>>* out) {
  at::Tensor host = figure_N.detach().to(at::kCPU).contiguous();
  const auto* values = host.const_data_ptr<float>();
  for (size_t m = 0; m < members.size(); ++m) {
    const int64_t count = packed.targets_of[m];
    for (int64_t k = 0; k < count; ++k) {
      if (std::isfinite(values[k])) continue;
      return absl::AbortedError(absl::StrCat("loss is not finite (first: rollout ",
                                             sequences[members[m]].id, ", token ", k, ", ",
                                             what, " ", values[k], ")"));
    }
    if (out != nullptr) (*out)[members[m]].assign(values, values + count);
    values += count;
  }
  return absl::OkStatus();
}

}  // namespace rein::trainer

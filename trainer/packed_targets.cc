#include "trainer/packed_targets.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include <ATen/ATen.h>

#include "common/nn/functions.h"

namespace rein::trainer {

namespace {

// Tokens before the first target; all when there is none.
int64_t PromptTokens(const TrainingSequence& s) {
  return std::find(s.loss_mask.begin(), s.loss_mask.end(), 1) - s.loss_mask.begin();
}

}  // namespace

int64_t SharedTokens(const TrainingSequence& previous, const TrainingSequence& next) {
  const int64_t prompt = PromptTokens(next);
  const auto shorter = static_cast<int64_t>(std::min(previous.token_ids.size(), next.token_ids.size()));
  if (prompt >= shorter || prompt != PromptTokens(previous) || previous.first_position != next.first_position) return 0;
  const bool same = std::equal(next.token_ids.begin(), next.token_ids.begin() + prompt, previous.token_ids.begin());
  return same ? prompt : 0;
}

PackedTargets PackTargets(const std::vector<TrainingSequence>& sequences,
                          const std::vector<size_t>& members, bool share) {
  PackedTargets packed;
  auto shared = [&](size_t m) {  // by member m with the one before it
    return share && m > 0 && m < members.size() ? SharedTokens(sequences[members[m - 1]], sequences[members[m]]) : 0;
  };
  auto append = [&](const TrainingSequence& s, int64_t begin, int64_t end, bool continues) {
    packed.token.insert(packed.token.end(), s.token_ids.begin() + begin, s.token_ids.begin() + end);
    packed.segments.push_back({.length = end - begin, .continues = continues, .first_position = s.first_position});
  };
  int64_t prompt = 0, prompt_end = 0;  // tokens of a prompt that is packed by itself, and where it ends
  for (size_t m = 0; m < members.size(); ++m) {
    const TrainingSequence& s = sequences[members[m]];
    const auto length = static_cast<int64_t>(s.token_ids.size());
    if (shared(m) == 0) {
      prompt = shared(m + 1);
      if (prompt > 0) append(s, 0, prompt, /*continues=*/false);
      prompt_end = static_cast<int64_t>(packed.token.size());
    }
    const auto begin = static_cast<int64_t>(packed.token.size());
    append(s, prompt, length, /*continues=*/prompt > 0);
    auto place = [&](int64_t t) { return t < prompt ? prompt_end - prompt + t : begin + t - prompt; };
    for (int64_t t = 1; t < length; ++t) {
      if (s.loss_mask[static_cast<size_t>(t)] == 0) continue;
      packed.source.push_back(place(t - 1));
      packed.target.push_back(s.token_ids[static_cast<size_t>(t)]);
      packed.target_place.push_back(place(t));
    }
    packed.targets_of.push_back(s.targets());
    packed.last.push_back(place(length - 1));
  }
  return packed;
}

namespace {

// Hidden states at the packed places `at`.
at::Tensor HiddenAt(const models::Decoder& decoder, const PackedTargets& packed,
                    const std::vector<int64_t>& at, bool recompute, const ForwardExtras& extras = {}) {
  at::Device device = decoder.device();
  auto on_device = [&](const std::vector<int64_t>& v) {
    return at::tensor(v, at::kLong).to(device);
  };
  at::Tensor hidden_TD = decoder.Hidden(on_device(packed.token),
                                        nn::PackedSegments(packed.segments, device), recompute,
                                        extras.routers, extras.noise_TD);
  return nn::Rows(hidden_TD, on_device(at));
}

}  // namespace

TargetFigures ForwardTargets(const models::Decoder& decoder, const PackedTargets& packed,
                             double temperature, bool recompute, const ForwardExtras& extras) {
  at::Tensor hidden_ND = HiddenAt(decoder, packed, packed.source, recompute, extras);
  at::Tensor target_N = at::tensor(packed.target, at::kLong).to(decoder.device());
  TargetFigures figures{decoder.Logprobs(hidden_ND, target_N, temperature), {}, {}};
  if (extras.candidate_NK.defined()) {
    figures.candidate_NK = decoder.CandidateLogprobs(hidden_ND, extras.candidate_NK, temperature);
  }
  if (extras.log_partition) {
    figures.log_partition_N =
        decoder.TargetLogits(hidden_ND, target_N, temperature) - figures.logprob_N;
  }
  return figures;
}

at::Tensor ScoresAt(const models::Decoder& decoder, const PackedTargets& packed, const std::vector<int64_t>& at,
                    bool recompute, const Routers& routers) {
  return decoder.Scores(HiddenAt(decoder, packed, at, recompute, {.routers = routers}));
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

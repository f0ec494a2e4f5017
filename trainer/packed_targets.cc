#include "trainer/packed_targets.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "absl/strings/str_cat.h"
#include <ATen/ATen.h>

#include "common/nn/functions.h"
#include "common/tensor/transfer.h"

namespace rein::trainer {

namespace {

// Tokens before the first target; all when there is none.
int64_t PromptTokens(const TrainingSequence& s) {
  return std::find(s.loss_mask.begin(), s.loss_mask.end(), 1) - s.loss_mask.begin();
}

// The experts of tokens [begin, end), -1 for those that are not known, as the last token's.
void AppendChoices(const TrainingSequence& s, int64_t begin, int64_t end, int64_t width, std::vector<int64_t>* choices) {
  const auto known = static_cast<int64_t>(s.expert_choices.size() / sizeof(uint16_t));
  for (int64_t i = begin * width; i < end * width; ++i) {
    uint16_t expert = kUnknownExpert;
    if (i < known) std::memcpy(&expert, s.expert_choices.data() + static_cast<size_t>(i) * sizeof(expert), sizeof(expert));
    choices->push_back(expert == kUnknownExpert ? -1 : expert);
  }
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
                          const std::vector<size_t>& members, bool share, int64_t choice_width) {
  PackedTargets packed;
  const bool replays = choice_width > 0 && std::any_of(members.begin(), members.end(), [&](size_t m) {
                         return !sequences[m].expert_choices.empty();
                       });
  auto shared = [&](size_t m) {  // by member m with the one before it
    return share && m > 0 && m < members.size() ? SharedTokens(sequences[members[m - 1]], sequences[members[m]]) : 0;
  };
  auto append = [&](const TrainingSequence& s, int64_t begin, int64_t end, bool continues) {
    packed.token.insert(packed.token.end(), s.token_ids.begin() + begin, s.token_ids.begin() + end);
    packed.segments.push_back({.length = end - begin, .continues = continues, .first_position = s.first_position});
    if (replays) AppendChoices(s, begin, end, choice_width, &packed.choices);
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

at::Tensor Longs(const std::vector<int64_t>& values, const models::Decoder& decoder) {
  return tensor::ToDevice(at::tensor(values, at::kLong), decoder.device());
}

at::Tensor HiddenOf(const models::Decoder& decoder, const PackedTargets& packed, const nn::SequenceView& view,
                    bool recompute, const ForwardExtras& extras) {
  return decoder.Hidden(Longs(packed.token, decoder), view, recompute, extras.routers, extras.noise_TD);
}

// Layer k predicts the token k + 2 places after a state from the states behind layer k - 1: a target's source stands k + 1
// places before the one that the head itself has, in the same segment.
std::vector<TargetFigures::Ahead> PredictAhead(const models::Decoder& decoder, const PackedTargets& packed,
                                               const nn::SequenceView& view, at::Tensor hidden_TD, double temperature,
                                               bool recompute) {
  std::vector<int64_t> begin;  // of each token's segment
  for (const nn::Segment& segment : packed.segments) {
    begin.insert(begin.end(), static_cast<size_t>(segment.length), static_cast<int64_t>(begin.size()));
  }
  std::vector<TargetFigures::Ahead> ahead;
  for (int64_t depth = 0; depth < decoder.spec().mtp_layers; ++depth) {
    const auto shift = static_cast<size_t>(depth + 1);
    std::vector<int64_t> next = packed.token, source, which, target;
    // Beyond the end any token does: the states there predict nothing.
    std::copy(packed.token.begin() + static_cast<ptrdiff_t>(std::min(shift, next.size())), packed.token.end(), next.begin());
    for (size_t n = 0; n < packed.target.size(); ++n) {
      const int64_t place = packed.source[n] - static_cast<int64_t>(shift);
      if (place < begin[static_cast<size_t>(packed.source[n])]) continue;
      source.push_back(place);
      which.push_back(static_cast<int64_t>(n));
      target.push_back(packed.target[n]);
    }
    hidden_TD = decoder.MtpHidden(depth, hidden_TD, Longs(next, decoder), view, recompute);
    if (which.empty()) continue;
    at::Tensor hidden_MD = nn::Rows(hidden_TD, Longs(source, decoder));
    ahead.push_back({decoder.Logprobs(hidden_MD, Longs(target, decoder), temperature).logprob_N, Longs(which, decoder)});
  }
  return ahead;
}

}  // namespace

TargetFigures ForwardTargets(const models::Decoder& decoder, const PackedTargets& packed,
                             double temperature, bool recompute, const ForwardExtras& extras) {
  const nn::SequenceView view = nn::PackedSegments(packed.segments, decoder.device());
  at::Tensor hidden_TD = HiddenOf(decoder, packed, view, recompute, extras);
  at::Tensor hidden_ND = nn::Rows(hidden_TD, Longs(packed.source, decoder)), target_N = Longs(packed.target, decoder);
  TargetFigures figures{decoder.Logprobs(hidden_ND, target_N, temperature), {}, {}, {}};
  if (extras.mtp) figures.ahead = PredictAhead(decoder, packed, view, hidden_TD, temperature, recompute);
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
  const nn::SequenceView view = nn::PackedSegments(packed.segments, decoder.device());
  return decoder.Scores(nn::Rows(HiddenOf(decoder, packed, view, recompute, {.routers = routers}), Longs(at, decoder)));
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

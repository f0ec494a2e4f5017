#include "common/policy/sequence_scorer.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "common/status/status_macros.h"
#include "common/tensor/catch_torch.h"

namespace rein::policy {
namespace {

// LibTorch's products on a CPU keep a row's bits only when their number of rows is a multiple of
// this.
constexpr int64_t kRowPadding = 8;
// Rows of the head's product at a time, a multiple of the padding.
constexpr int64_t kHeadRows = 128;
// Tokens of one forward pass on a GPU; a longer sequence has one of its own.
constexpr int64_t kPackedTokens = 16384;

int64_t RoundUp(int64_t rows) { return (rows + kRowPadding - 1) / kRowPadding * kRowPadding; }

// Log-probs of `target` at rows `where` of hidden_TD, in slices of rows.
std::vector<float> HeadLogprobs(const models::Decoder& decoder, const at::Tensor& hidden_TD,
                                std::vector<int64_t> where, std::vector<int64_t> target,
                                double temperature) {
  const size_t wanted = where.size();
  const int64_t rows = RoundUp(static_cast<int64_t>(wanted));
  where.resize(static_cast<size_t>(rows), 0);
  target.resize(static_cast<size_t>(rows), 0);
  at::Tensor hidden_ND =
      hidden_TD.index_select(0, at::tensor(where, at::kLong).to(hidden_TD.device()));
  at::Tensor target_N = at::tensor(target, at::kLong).to(hidden_TD.device());
  std::vector<float> logprobs;
  for (int64_t begin = 0; begin < rows; begin += kHeadRows) {
    const int64_t n = std::min(kHeadRows, rows - begin);
    at::Tensor logprob_N =
        decoder.Logprobs(hidden_ND.narrow(0, begin, n), target_N.narrow(0, begin, n), temperature)
            .logprob_N.to(at::kCPU, at::kFloat)
            .contiguous();
    const float* values = logprob_N.const_data_ptr<float>();
    logprobs.insert(logprobs.end(), values, values + n);
  }
  logprobs.resize(wanted);
  return logprobs;
}

// Scores sequences [begin, end) in one forward pass. Padding comes after the last one's tokens,
// where causality hides it.
void ScorePacked(const models::Decoder& decoder, const std::vector<ScoredSequence>& sequences,
                 size_t begin, size_t end, double temperature,
                 std::vector<std::vector<float>>& result) {
  std::vector<int64_t> tokens, lengths, where, target;
  for (size_t s = begin; s < end; ++s) {
    const ScoredSequence& sequence = sequences[s];
    for (size_t i = sequence.prefix; i < sequence.tokens.size(); ++i) {
      where.push_back(static_cast<int64_t>(tokens.size() + i) - 1);
      target.push_back(sequence.tokens[i]);
    }
    tokens.insert(tokens.end(), sequence.tokens.begin(), sequence.tokens.end());
    lengths.push_back(static_cast<int64_t>(sequence.tokens.size()));
  }
  if (where.empty()) return;
  const int64_t room = decoder.spec().max_positions - lengths.back();
  const int64_t padding = std::min(
      RoundUp(static_cast<int64_t>(tokens.size())) - static_cast<int64_t>(tokens.size()), room);
  tokens.resize(tokens.size() + static_cast<size_t>(padding), 0);
  lengths.back() += padding;
  at::Tensor hidden_TD = decoder.Hidden(at::tensor(tokens, at::kLong).to(decoder.device()),
                                        nn::PackedSequences(lengths, decoder.device()));
  std::vector<float> logprobs = HeadLogprobs(decoder, hidden_TD, where, target, temperature);
  auto next = logprobs.begin();
  for (size_t s = begin; s < end; ++s) {
    const size_t count = sequences[s].tokens.size() - sequences[s].prefix;
    result[s].assign(next, next + static_cast<ptrdiff_t>(count));
    next += static_cast<ptrdiff_t>(count);
  }
}

}  // namespace

absl::Status CheckSequence(const models::DecoderSpec& spec, const ScoredSequence& sequence) {
  const size_t size = sequence.tokens.size();
  if (size == 0 || static_cast<int64_t>(size) > spec.max_positions) {
    return absl::InvalidArgumentError(
        absl::StrCat(size, " tokens, want 1 to ", spec.max_positions, ", the model's context"));
  }
  if (sequence.prefix < 1 || sequence.prefix > size) {
    return absl::InvalidArgumentError(
        absl::StrCat("prefix is ", sequence.prefix, ", want 1 to ", size));
  }
  for (size_t i = 0; i < size; ++i) {
    if (sequence.tokens[i] < spec.vocab_size) continue;
    return absl::InvalidArgumentError(absl::StrCat("token ", i, " is ", sequence.tokens[i],
                                                   ", want an id below the vocabulary size ",
                                                   spec.vocab_size));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<std::vector<float>>> ScoreSequences(
    const models::Decoder& decoder, const std::vector<ScoredSequence>& sequences,
    double temperature) {
  if (!(temperature > 0)) {
    return absl::InvalidArgumentError(
        absl::StrCat("temperature is ", temperature, ", want above 0"));
  }
  for (size_t s = 0; s < sequences.size(); ++s) {
    absl::Status status = CheckSequence(decoder.spec(), sequences[s]);
    if (status.ok()) continue;
    return absl::InvalidArgumentError(absl::StrCat("sequence ", s, ": ", status.message()));
  }
  std::vector<std::vector<float>> result(sequences.size());
  const bool cpu = decoder.device().is_cpu();
  REIN_RETURN_IF_ERROR(tensor::CatchTorch("scoring", [&] {
    at::NoGradGuard no_grad;
    for (size_t begin = 0; begin < sequences.size();) {
      size_t end = begin + 1;
      size_t tokens = sequences[begin].tokens.size();
      while (!cpu && end < sequences.size() &&
             tokens + sequences[end].tokens.size() <= kPackedTokens) {
        tokens += sequences[end++].tokens.size();
      }
      ScorePacked(decoder, sequences, begin, end, temperature, result);
      begin = end;
    }
  }));
  return result;
}

}  // namespace rein::policy

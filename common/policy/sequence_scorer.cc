#include "common/policy/sequence_scorer.h"

#include <algorithm>
#include <functional>

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

// Hidden states of sequences [begin, end) in one forward pass. Padding comes after the last one's tokens,
// where causality hides it.
at::Tensor HiddenOfPack(const models::Decoder& decoder,
                        const std::vector<ScoredSequence>& sequences, size_t begin, size_t end) {
  std::vector<int64_t> tokens, lengths;
  for (size_t s = begin; s < end; ++s) {
    const ScoredSequence& sequence = sequences[s];
    tokens.insert(tokens.end(), sequence.tokens.begin(), sequence.tokens.end());
    lengths.push_back(static_cast<int64_t>(sequence.tokens.size()));
  }
  const int64_t room = decoder.spec().max_positions - lengths.back();
  const int64_t padding = std::min(
      RoundUp(static_cast<int64_t>(tokens.size())) - static_cast<int64_t>(tokens.size()), room);
  tokens.resize(tokens.size() + static_cast<size_t>(padding), 0);
  lengths.back() += padding;
  return decoder.Hidden(at::tensor(tokens, at::kLong).to(decoder.device()),
                        nn::PackedSequences(lengths, decoder.device()));
}

// Log-probs of sequences [begin, end) in one forward pass.
void ScorePacked(const models::Decoder& decoder, const std::vector<ScoredSequence>& sequences,
                 size_t begin, size_t end, double temperature,
                 std::vector<std::vector<float>>& result) {
  std::vector<int64_t> where, target;
  int64_t first = 0;  // packed place of the sequence's first token
  for (size_t s = begin; s < end; ++s) {
    const ScoredSequence& sequence = sequences[s];
    for (size_t i = sequence.prefix; i < sequence.tokens.size(); ++i) {
      where.push_back(first + static_cast<int64_t>(i) - 1);
      target.push_back(sequence.tokens[i]);
    }
    first += static_cast<int64_t>(sequence.tokens.size());
  }
  if (where.empty()) return;
  at::Tensor hidden_TD = HiddenOfPack(decoder, sequences, begin, end);
  const std::vector<float> logprobs =
      InHeadSlices(hidden_TD, where, target, [&](const at::Tensor& hidden_ND, const at::Tensor& target_N) {
        return decoder.Logprobs(hidden_ND, target_N, temperature).logprob_N;
      });
  auto next = logprobs.begin();
  for (size_t s = begin; s < end; ++s) {
    const size_t count = sequences[s].tokens.size() - sequences[s].prefix;
    result[s].assign(next, next + static_cast<ptrdiff_t>(count));
    next += static_cast<ptrdiff_t>(count);
  }
}

using Pack = std::function<void(size_t begin, size_t end)>;

// Calls `pack` for all sequences, as many at a time as one pass takes.
absl::Status ForEachPack(const models::Decoder& decoder,
                         const std::vector<ScoredSequence>& sequences, const Pack& pack) {
  for (size_t s = 0; s < sequences.size(); ++s) {
    absl::Status status = CheckSequence(decoder.spec(), sequences[s]);
    if (status.ok()) continue;
    return absl::InvalidArgumentError(absl::StrCat("sequence ", s, ": ", status.message()));
  }
  const bool cpu = decoder.device().is_cpu();
  return tensor::CatchTorch("scoring", [&] {
    at::NoGradGuard no_grad;
    for (size_t begin = 0; begin < sequences.size();) {
      size_t end = begin + 1;
      size_t tokens = sequences[begin].tokens.size();
      while (!cpu && end < sequences.size() &&
             tokens + sequences[end].tokens.size() <= kPackedTokens) {
        tokens += sequences[end++].tokens.size();
      }
      pack(begin, end);
      begin = end;
    }
  });
}

}  // namespace

std::vector<float> InHeadSlices(const at::Tensor& hidden_TD, std::vector<int64_t> where, std::vector<int64_t> target,
                                const HeadSlice& head) {
  const size_t wanted = where.size();
  const int64_t rows = RoundUp(static_cast<int64_t>(wanted));
  where.resize(static_cast<size_t>(rows), 0);
  target.resize(static_cast<size_t>(rows), 0);
  at::Tensor hidden_ND = hidden_TD.index_select(0, at::tensor(where, at::kLong).to(hidden_TD.device()));
  at::Tensor target_N = at::tensor(target, at::kLong).to(hidden_TD.device());
  std::vector<float> logprobs;
  for (int64_t begin = 0; begin < rows; begin += kHeadRows) {
    const int64_t n = std::min(kHeadRows, rows - begin);
    at::Tensor logprob_N =
        head(hidden_ND.narrow(0, begin, n), target_N.narrow(0, begin, n)).to(at::kCPU, at::kFloat).contiguous();
    const float* values = logprob_N.const_data_ptr<float>();
    logprobs.insert(logprobs.end(), values, values + n);
  }
  logprobs.resize(wanted);
  return logprobs;
}

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
  if (decoder.spec().scalar_head) {
    return absl::InvalidArgumentError("the model is a reward model, which has no log-probs");
  }
  std::vector<std::vector<float>> result(sequences.size());
  REIN_RETURN_IF_ERROR(ForEachPack(decoder, sequences, [&](size_t begin, size_t end) {
    ScorePacked(decoder, sequences, begin, end, temperature, result);
  }));
  return result;
}

absl::StatusOr<std::vector<TopTokens>> ScoreTopTokens(const models::Decoder& decoder,
                                                      const std::vector<ScoredSequence>& sequences,
                                                      double temperature, int64_t k) {
  if (!(temperature > 0) || k < 1 || decoder.spec().scalar_head) {
    return absl::InvalidArgumentError(absl::StrCat("temperature is ", temperature, " and top_k ", k,
                                                   ", want above 0, of a model with a vocabulary"));
  }
  k = std::min(k, decoder.spec().vocab_size);
  std::vector<TopTokens> result(sequences.size());
  REIN_RETURN_IF_ERROR(ForEachPack(decoder, sequences, [&](size_t begin, size_t end) {
    at::Tensor hidden_TD = HiddenOfPack(decoder, sequences, begin, end);
    int64_t first = 0;
    for (size_t s = begin; s < end; ++s) {
      const auto length = static_cast<int64_t>(sequences[s].tokens.size());
      // The state before a token predicts it.
      for (int64_t at = sequences[s].prefix - 1; at + 1 < length; at += kHeadRows) {
        const int64_t rows = std::min(kHeadRows, length - 1 - at);
        at::Tensor logits = decoder.Logits(hidden_TD.narrow(0, first + at, rows)).to(at::kFloat);
        auto [logprob, id] = at::log_softmax(logits / temperature, 1).topk(k, 1);
        logprob = logprob.to(at::kCPU).contiguous();
        id = id.to(at::kCPU).contiguous();
        const int64_t* ids = id.const_data_ptr<int64_t>();
        const float* logprobs = logprob.const_data_ptr<float>();
        result[s].ids.insert(result[s].ids.end(), ids, ids + rows * k);
        result[s].logprobs.insert(result[s].logprobs.end(), logprobs, logprobs + rows * k);
      }
      first += length;
    }
  }));
  return result;
}

absl::StatusOr<std::vector<std::vector<float>>> ScorePlaces(const models::Decoder& decoder,
                                                            const std::vector<ScoredSequence>& sequences,
                                                            const std::vector<std::vector<uint32_t>>& places) {
  if (!decoder.spec().scalar_head) {
    return absl::InvalidArgumentError("the model is a causal language model, which has no scores");
  }
  std::vector<std::vector<float>> result(sequences.size());
  REIN_RETURN_IF_ERROR(ForEachPack(decoder, sequences, [&](size_t begin, size_t end) {
    std::vector<int64_t> where;
    int64_t first = 0;  // packed place of the sequence's first token
    for (size_t s = begin; s < end; ++s) {
      for (uint32_t place : places[s]) where.push_back(first + place);
      first += static_cast<int64_t>(sequences[s].tokens.size());
    }
    at::Tensor hidden_TD = HiddenOfPack(decoder, sequences, begin, end);
    at::Tensor where_N = at::tensor(where, at::kLong).to(hidden_TD.device());
    at::Tensor score_N = decoder.Scores(hidden_TD.index_select(0, where_N)).to(at::kCPU).contiguous();
    const float* values = score_N.const_data_ptr<float>();
    for (size_t s = begin; s < end; ++s) {
      result[s].assign(values, values + places[s].size());
      values += places[s].size();
    }
  }));
  return result;
}

}  // namespace rein::policy

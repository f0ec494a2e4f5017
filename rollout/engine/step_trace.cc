#include "rollout/engine/step_trace.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "common/nn/head.h"
#include "common/status/status_macros.h"
#include "common/tensor/catch_torch.h"
#include "rollout/engine/decoder_step_model.h"

namespace rein::rollout {
namespace {

constexpr int64_t kHeadRows = 128;  // of logits at a time; a multiple of kRowPadding
constexpr int32_t kFirstPage = 1;   // page 0 is padding's

// Tokens [begin, end) of the sequence.
StepBatch Step(const std::vector<uint32_t>& tokens, size_t begin, size_t end, int32_t page_tokens) {
  StepBatch batch;
  for (size_t t = begin; t < end; ++t) {
    batch.tokens.push_back(tokens[t]);
    batch.positions.push_back(static_cast<int64_t>(t));
    batch.slots.push_back(static_cast<int64_t>(t) + kFirstPage * page_tokens);
  }
  batch.offsets.push_back(static_cast<int64_t>(end - begin));
  std::vector<int32_t> pages;
  for (int32_t page = 0; page * page_tokens < static_cast<int32_t>(end); ++page) pages.push_back(kFirstPage + page);
  batch.pages.push_back(std::move(pages));
  batch.contexts.push_back(static_cast<int64_t>(end));
  batch.draws.push_back({static_cast<int64_t>(end - begin) - 1, RowDraw()});
  return batch;
}

// The log-probs of the tokens behind the prefix, from logits as a step makes them.
std::vector<float> StepLogprobs(const models::Decoder& decoder, const at::Tensor& states_TD,
                                const policy::ScoredSequence& sequence, double temperature) {
  std::vector<float> logprobs;
  const auto end = static_cast<int64_t>(sequence.tokens.size());
  for (int64_t first = sequence.prefix; first < end; first += kHeadRows) {
    const int64_t rows = std::min(kHeadRows, end - first);
    const int64_t padded = decoder.device().is_cpu() ? (rows + kRowPadding - 1) / kRowPadding * kRowPadding : rows;
    std::vector<int64_t> where, target;
    for (int64_t t = first; t < first + rows; ++t) {
      where.push_back(t - 1);
      target.push_back(sequence.tokens[static_cast<size_t>(t)]);
    }
    where.resize(static_cast<size_t>(padded), 0);
    target.resize(static_cast<size_t>(padded), 0);
    at::Tensor target_N = at::tensor(target, at::kLong).to(decoder.device());
    at::Tensor logits_NV =
        decoder.Logits(states_TD.index_select(0, at::tensor(where, at::kLong).to(decoder.device())));
    at::Tensor logprob_N =
        logits_NV.is_cuda() && logits_NV.scalar_type() == at::kBFloat16
            ? nn::TokenLogprobsOfLogits(logits_NV.contiguous(), target_N, temperature).logprob_N
            : at::log_softmax(logits_NV.to(at::kFloat) / temperature, 1).gather(1, target_N.unsqueeze(1)).squeeze(1);
    logprob_N = logprob_N.to(at::kCPU).contiguous();
    const float* values = logprob_N.const_data_ptr<float>();
    logprobs.insert(logprobs.end(), values, values + rows);
  }
  return logprobs;
}

}  // namespace

absl::StatusOr<policy::LayerTrace> TraceInSteps(const policy::PolicySlots& slots,
                                                const policy::ScoredSequence& sequence, double temperature) {
  const models::Decoder& decoder = slots.decoder();
  REIN_RETURN_IF_ERROR(policy::CheckSequence(decoder.spec(), sequence));
  if (!(temperature > 0)) {
    return absl::InvalidArgumentError(absl::StrCat("temperature is ", temperature, ", want above 0"));
  }
  KvOptions options;
  options.capture = false;
  options.kv_tokens = sequence.tokens.size() + static_cast<uint64_t>(options.page_tokens);
  REIN_ASSIGN_OR_RETURN(auto model, DecoderStepModel::Create(slots, options));
  policy::LayerRecorder recorder(decoder.spec());
  for (size_t begin = 0, end = sequence.prefix; begin < sequence.tokens.size(); begin = end, ++end) {
    recorder.Expect(static_cast<int64_t>(end - begin));
    REIN_RETURN_IF_ERROR(model->Begin(Step(sequence.tokens, begin, end, options.page_tokens)));
    REIN_RETURN_IF_ERROR(model->Collect().status());
  }
  policy::LayerTrace trace;
  REIN_RETURN_IF_ERROR(tensor::CatchTorch("trace of a sequence", [&] {
    at::NoGradGuard no_grad;
    trace = recorder.Take();
    if (sequence.prefix < sequence.tokens.size()) {
      trace.logprob = StepLogprobs(decoder, recorder.LastStates(), sequence, temperature);
    }
  }));
  return trace;
}

}  // namespace rein::rollout

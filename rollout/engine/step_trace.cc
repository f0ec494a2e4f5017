#include "rollout/engine/step_trace.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "common/nn/head.h"
#include "common/policy/sequence_scorer.h"
#include "common/status/status_macros.h"
#include "common/tensor/catch_torch.h"
#include "rollout/engine/decoder_step_model.h"

namespace rein::rollout {
namespace {

constexpr int32_t kFirstPage = 1;   // page 0 is padding's

// The log-probs of the tokens behind the prefix, from logits as a step makes them.
std::vector<float> StepLogprobs(const models::Decoder& decoder, const at::Tensor& states_TD,
                                const policy::ScoredSequence& sequence, double temperature) {
  std::vector<int64_t> where, target;
  for (size_t t = sequence.prefix; t < sequence.tokens.size(); ++t) {
    where.push_back(static_cast<int64_t>(t) - 1);
    target.push_back(sequence.tokens[t]);
  }
  return policy::InHeadSlices(states_TD, where, target, [&](const at::Tensor& hidden_ND, const at::Tensor& target_N) {
    at::Tensor logits_NV = decoder.Logits(hidden_ND);
    return logits_NV.is_cuda() && logits_NV.scalar_type() == at::kBFloat16
               ? nn::TokenLogprobsOfLogits(logits_NV.contiguous(), target_N, temperature).logprob_N
               : at::log_softmax(logits_NV.to(at::kFloat) / temperature, 1).gather(1, target_N.unsqueeze(1)).squeeze(1);
  });
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
  const std::vector<int64_t> tokens(sequence.tokens.begin(), sequence.tokens.end());
  for (size_t begin = 0, end = sequence.prefix; begin < sequence.tokens.size(); begin = end, ++end) {
    recorder.Expect(static_cast<int64_t>(end - begin));
    StepBatch batch;
    AddTokens(kFirstPage, options.page_tokens, tokens, begin, end, batch);
    REIN_RETURN_IF_ERROR(model->Begin(batch));
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

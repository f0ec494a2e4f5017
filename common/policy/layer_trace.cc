#include "common/policy/layer_trace.h"

#include <cmath>
#include <numeric>
#include <utility>

#include <ATen/ATen.h>

#include "common/models/layer_watch.h"
#include "common/status/status_macros.h"
#include "common/weights/digest.h"

namespace rein::policy {
namespace {

std::vector<uint64_t> RowDigests(const at::Tensor& host_TD) {
  const auto row_bytes = static_cast<size_t>(host_TD.size(1)) * host_TD.element_size();
  const auto* bytes = static_cast<const char*>(host_TD.const_data_ptr());
  std::vector<uint64_t> digests;
  for (int64_t t = 0; t < host_TD.size(0); ++t) digests.push_back(weights::Digest(bytes + t * row_bytes, row_bytes));
  return digests;
}

// Row by row, so that a row's norm does not depend on the others.
std::vector<float> RowNorms(const at::Tensor& host_TD) {
  const float* row = host_TD.const_data_ptr<float>();
  const auto columns = static_cast<size_t>(host_TD.size(1));
  std::vector<float> norms;
  for (int64_t t = 0; t < host_TD.size(0); ++t, row += columns) {
    norms.push_back(static_cast<float>(std::sqrt(std::inner_product(row, row + columns, row, 0.0))));
  }
  return norms;
}

}  // namespace

struct LayerRecorder::State {
  explicit State(size_t stages) { trace.digest.resize(stages), trace.norm.resize(stages); }

  void See(const at::Tensor& x_TD, const at::Tensor& delta_TD) {
    at::Tensor x = x_TD.narrow(0, 0, tokens).to(at::kCPU).contiguous(), sum = x.to(at::kFloat);
    std::vector<uint64_t> digests = RowDigests(x);
    if (delta_TD.defined()) {
      at::Tensor delta = delta_TD.narrow(0, 0, tokens).to(at::kCPU).contiguous();
      sum = sum + delta.to(at::kFloat);
      const std::vector<uint64_t> added = RowDigests(delta);
      for (size_t t = 0; t < digests.size(); ++t) digests[t] = weights::CombineDigests({digests[t], added[t]});
    }
    const std::vector<float> norms = RowNorms(sum);
    trace.digest[stage].insert(trace.digest[stage].end(), digests.begin(), digests.end());
    trace.norm[stage].insert(trace.norm[stage].end(), norms.begin(), norms.end());
    if (stage + 1 == trace.stages()) last.push_back(x_TD.narrow(0, 0, tokens).clone());
    stage = (stage + 1) % trace.stages();
  }

  LayerTrace trace;
  size_t stage = 0;
  int64_t tokens = 0;  // of the pass that comes
  std::vector<at::Tensor> last;
  models::LayerWatch watch{[this](const at::Tensor& x_TD, const at::Tensor& delta_TD) { See(x_TD, delta_TD); }};
};

LayerRecorder::LayerRecorder(const models::DecoderSpec& spec)
    : state_(std::make_unique<State>(static_cast<size_t>(spec.num_layers) + 2)) {}

LayerRecorder::~LayerRecorder() = default;

void LayerRecorder::Expect(int64_t tokens) { state_->tokens = tokens; }

LayerTrace LayerRecorder::Take() { return std::move(state_->trace); }

at::Tensor LayerRecorder::LastStates() const { return at::cat(state_->last); }

absl::StatusOr<LayerTrace> TraceAtOnce(const models::Decoder& decoder, const ScoredSequence& sequence,
                                       double temperature) {
  LayerRecorder recorder(decoder.spec());
  recorder.Expect(static_cast<int64_t>(sequence.tokens.size()));
  REIN_ASSIGN_OR_RETURN(auto logprobs, ScoreSequences(decoder, {sequence}, temperature));
  LayerTrace trace = recorder.Take();
  trace.logprob = std::move(logprobs[0]);
  return trace;
}

}  // namespace rein::policy

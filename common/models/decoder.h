// Decoder is the transformer that the trainer, the generator and the reference all run: one definition, so that
// they agree.
//
//   auto specs = DecoderParameters(spec);
//   REIN_ASSIGN_OR_RETURN(weights::Registry registry, weights::Registry::Create(std::move(specs)));
//   Arenas arenas = ...;                                     // flat tensors of registry.arena_elements()
//   REIN_ASSIGN_OR_RETURN(auto decoder, Decoder::Create(spec, registry, compute, grad));
//   at::Tensor hidden_TD = decoder->Hidden(token_T, view);   // after the last norm
//   nn::TokenLogprobs out = decoder->Logprobs(hidden_TD.index_select(0, where_N), target_N, 1.0);
//
// Weights are views of the arenas, which must outlive the decoder; whoever writes the arenas must not do
// so during a call. Otherwise immutable and thread-safe. Calls may throw c10::Error (out of memory):
// wrap them in tensor::CatchTorch.

#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "common/models/arena.h"
#include "common/models/decoder_parameters.h"
#include "common/models/decoder_spec.h"
#include "common/models/rope_table.h"
#include "common/nn/attention.h"
#include "common/nn/functions.h"
#include "common/nn/head.h"
#include "common/nn/query_key_value.h"
#include "common/nn/sequence_view.h"
#include "common/weights/registry.h"

namespace rein::models {

class Decoder {
 public:
  // `compute` is flat, bf16 or fp32; `grad` is flat fp32 of the length of the trained part, or undefined for inference.
  // INVALID_ARGUMENT when the registry or an arena does not fit the spec.
  static absl::StatusOr<std::unique_ptr<Decoder>> Create(const DecoderSpec& spec,
                                                         const weights::Registry& registry,
                                                         const at::Tensor& compute,
                                                         const at::Tensor& grad = {});
  // The same over parts that stand apart.
  static absl::StatusOr<std::unique_ptr<Decoder>> Create(const DecoderSpec& spec,
                                                         const weights::Registry& registry,
                                                         const ArenaParts& compute,
                                                         const at::Tensor& grad = {});

  // token_T int64 [T] -> [T, D] hidden states after the last norm. `recompute` trades time for memory in
  // the backward pass. `routers` notes what routers do, and brings their auxiliary loss. noise_TD, where it is
  // defined, is added to the embeddings.
  at::Tensor Hidden(const at::Tensor& token_T, const nn::SequenceView& view, bool recompute = false,
                    const std::shared_ptr<nn::RouterRecord>& routers = nullptr,
                    const at::Tensor& noise_TD = {}) const;
  // Multi-token prediction (arXiv 2412.19437, section 2.2; Megatron-LM multi_token_prediction.py): what layer `depth`, from
  // 0, makes of the states behind it (Hidden(), then those of depth - 1) and of next_T, the token depth + 1 places after each:
  // states whose Logprobs() are of the token after that. `view` is that of Hidden(). Of a spec with mtp_layers.
  at::Tensor MtpHidden(int64_t depth, const at::Tensor& hidden_TD, const at::Tensor& next_T, const nn::SequenceView& view,
                       bool recompute = false) const;
  // A record for one pass; null for a model without routers.
  std::shared_ptr<nn::RouterRecord> NewRouterRecord() const;

  // Log-probs and entropies of chosen tokens under softmax(logits / temperature); see nn/head.h.
  nn::TokenLogprobs Logprobs(const at::Tensor& hidden_ND, const at::Tensor& target_N,
                             double temperature) const;

  // fp32 [N]: logits / temperature of chosen tokens, differentiable like Logprobs(). Not of a normalised head.
  at::Tensor TargetLogits(const at::Tensor& hidden_ND, const at::Tensor& target_N,
                          double temperature) const;

  // fp32 [N, K]: log-probs of several tokens at each place; see nn/candidate_logprobs.h.
  at::Tensor CandidateLogprobs(const at::Tensor& hidden_ND, const at::Tensor& candidate_NK,
                               double temperature) const;

  // fp32 [N], of a model with a scalar head (which has no log-probs); see nn/scalar_head.h.
  at::Tensor Scores(const at::Tensor& hidden_ND) const;

  // [N, V] in the compute dtype; no backward.
  at::Tensor Logits(const at::Tensor& hidden_ND) const;

  // KV pages for all layers, on the device and in kv_dtype(); what they hold is undefined. Latent
  // attention keeps one kv head [latent; rotated key] and no values, a recurrent layer its state (nn/delta_net.h).
  // `choices`: with the experts of each token, -1 until they are known.
  std::vector<nn::KvPages> NewPages(int64_t pages, int64_t page_tokens, bool choices = false) const;

  const DecoderSpec& spec() const { return spec_; }
  // Of one page in all layers.
  int64_t kv_bytes_per_page(int64_t page_tokens, bool choices = false) const;
  at::Device device() const;
  at::ScalarType dtype() const;
  // Of the pages' keys and values: fp8 (e4m3) where spec().kv_fp8 and kernels read them, else that of the weights.
  at::ScalarType kv_dtype() const;

 private:
  explicit Decoder(const DecoderSpec& spec) : spec_(spec) {}

  struct Pass;  // what all blocks of one forward pass read

  std::shared_ptr<Pass> NewPass(const nn::SequenceView& view, const std::shared_ptr<nn::RouterRecord>& routers) const;
  at::Tensor Embedded(const at::Tensor& token_T, const nn::SequenceView& view) const;
  // `layer` counts on into the layers of multi-token prediction.
  nn::Residual Block(int layer, const nn::Residual& in, const Pass& pass) const;
  at::Tensor Attended(int layer, const at::Tensor& x_TD, const Pass& pass) const;
  at::Tensor FedForward(int layer, const at::Tensor& x_TD, const Pass& pass) const;
  at::Tensor FeedForward(const at::Tensor& x_TD, const FeedForwardWeights& weights) const;

  DecoderSpec spec_;
  bool trained_ = false;  // there is a gradient arena
  DecoderWeights weights_;
  nn::HeadRule head_rule_;
  std::vector<nn::AttentionRule> rules_;  // of each layer
  std::vector<RopeTable> tables_;         // of each of spec().ropes, on the device
};

}  // namespace rein::models

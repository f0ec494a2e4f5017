// The parameters of a decoder: what there is, and as views of the arenas.

#pragma once

#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/models/arena.h"
#include "common/models/decoder_spec.h"
#include "common/nn/delta_net.h"
#include "common/nn/experts.h"
#include "common/nn/latent_projection.h"
#include "common/nn/norm.h"
#include "common/nn/weight.h"
#include "common/weights/registry.h"

namespace rein::models {

// Every parameter of a decoder. Low-rank updates of a matrix x.weight are x.lora_a [R, columns] and x.lora_b [rows, R].
std::vector<weights::ParameterSpec> DecoderParameters(const DecoderSpec& spec);

inline constexpr char kLoraDown[] = ".lora_a", kLoraUp[] = ".lora_b";
bool IsLora(absl::string_view parameter);

// What is undefined, the family does not have.
struct FeedForwardWeights {
  nn::Weight up, up_bias;  // gated: [gate; up]
  nn::Weight down, down_bias;
};

struct LayerWeights {
  nn::NormWeights attention_norm, mlp_norm, attention_post_norm, mlp_post_norm;
  nn::Weight qkv, qkv_bias, q_norm, k_norm, sinks, gate, gate_bias;
  nn::LatentWeights latent;
  nn::DeltaWeights delta;
  nn::Weight output, output_bias;
  FeedForwardWeights mlp, shared;
  nn::Weight shared_gate;
  nn::ExpertWeights experts;
};

struct MtpWeights {
  nn::NormWeights embedding_norm, hidden_norm, norm;
  nn::Weight projection;  // [D, 2 D]: of the embedding, of the hidden state
};

struct DecoderWeights {
  nn::Weight embedding, positions, head;
  nn::Weight project_in, project_out;  // [D, E] and [E, D] of embeddings of another width
  nn::NormWeights embedding_norm, norm;
  std::vector<LayerWeights> layers;  // those of multi-token prediction last
  std::vector<MtpWeights> mtp;
};

// Views of the arenas. INVALID_ARGUMENT names the parameters that the registry lacks.
absl::StatusOr<DecoderWeights> CutWeights(const DecoderSpec& spec, const weights::Registry& registry,
                                          const ArenaParts& compute, const at::Tensor& grad);

}  // namespace rein::models

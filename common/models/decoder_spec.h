// DecoderSpec is the shape of a decoder, as read from a Hugging Face config.json. A flag stands here only if two
// families differ in it.

#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "common/nn/activation.h"
#include "common/nn/delta_net.h"
#include "common/nn/experts.h"
#include "common/nn/norm.h"
#include "common/weights/quantisation.h"

namespace rein::models {

// How rotary frequencies are stretched beyond the context of pre-training (`transformers` modeling_rope_utils).
struct RopeScaling {
  enum class Kind { kNone, kLinear, kLlama3, kYarn, kLongRope };
  Kind kind = Kind::kNone;
  double factor = 1;
  double low_freq_factor = 1;             // kLlama3
  double high_freq_factor = 4;            // kLlama3
  double beta_fast = 32, beta_slow = 1;   // kYarn
  bool truncate = true;                   // kYarn: the ramp begins and ends at whole dims
  std::vector<double> short_factors;      // kLongRope: of each frequency, within the original context
  double attention_factor = 1;            // multiplies cos and sin
  int64_t original_max_positions = 0;
};

struct RopeSpec {
  double theta = 10000;
  RopeScaling scaling;
};

// In what one layer may differ from the next.
struct LayerSpec {
  int64_t window = 0;   // above 0: keys that a query sees
  int rope = 0;         // which of DecoderSpec::ropes; -1: its queries and keys are not turned
  bool sparse = false;  // a mixture of experts instead of one feed-forward layer
  bool recurrent = false;  // a gated delta net instead of attention
};

// Where the norms of a block stand.
struct BlockSpec {
  bool pre_norm = true;        // before attention and before the feed-forward layer
  bool post_norm = false;      // behind each, before its output is added
  bool sum_norm = false;       // behind each, of the sum that goes on (as in the first transformer); then no last norm
  bool parallel = false;       // both read the same input and are added together
  bool own_mlp_norm = true;    // parallel: the feed-forward layer has its own norm of that input
  double residual_multiplier = 1;
};

// Multi-head latent attention; none when latent_dim is 0.
struct LatentSpec {
  int64_t query_dim = 0;  // 0: queries are projected at once
  int64_t latent_dim = 0;
  int64_t plain_dim = 0, rotary_dim = 0, value_dim = 0;  // of a head
};

struct ExpertSpec {
  nn::RoutingRule routing;  // experts 0: no layer is sparse
  int64_t ffn_dim = 0;
  int64_t shared_ffn_dim = 0;    // of the layer that every token passes; 0: none
  bool shared_gate = false;      // its output times sigmoid of a projection to one number
  bool router_bias = false;
  bool correction = false;       // a bias of the choice, without gradient
  bool bias = false;             // of the experts' projections
  double balance = 0;            // coefficient of the auxiliary loss; see nn/router_record.h
};

// The size of a low-rank update, and what it is multiplied by; see nn::LowRankUpdate.
struct LoraShape {
  int64_t rank = 0;
  double scale = 1;
};

enum class Alibi { kNone, kAdded, kScaled };  // kScaled: rounded to bf16, then times the scale of scores (Falcon)

enum class QkNorm { kNone, kHead, kWhole };  // RMSNorm before the turn: over a head, or over all of q and of k

struct DecoderSpec {
  std::string architecture;  // such as LlamaForCausalLM
  int64_t vocab_size = 0;
  int64_t model_dim = 0;
  int64_t num_layers = 0;
  int64_t num_heads = 0;
  int64_t num_kv_heads = 0;
  int64_t head_dim = 0;
  int64_t ffn_dim = 0;
  int64_t max_positions = 0;

  nn::NormKind norm = nn::NormKind::kRms;
  bool norm_weights = true;  // false: norms without weight and bias
  bool norm_bias = false;
  double norm_epsilon = 1e-6;
  BlockSpec block;

  int64_t embedding_dim = 0;  // 0: model_dim; else a projection into the model, and one out of it before the head
  double embedding_multiplier = 1;
  bool embedding_norm = false;
  int64_t position_rows = 0;    // above 0: learned positions, so many rows
  int64_t position_offset = 0;  // the row of position 0

  std::vector<RopeSpec> ropes = std::vector<RopeSpec>(1);
  int64_t rotary_dim = 0;  // of a head; 0: all of it
  bool rope_interleaved = false;
  Alibi alibi = Alibi::kNone;
  bool kv_fp8 = false;  // keys and values are rounded to fp8 (e4m3) before attention, and pages hold them so where kernels read them
  bool qkv_bias = false;
  bool output_bias = false;  // of the attention's output projection
  QkNorm qk_norm = QkNorm::kNone;
  double score_scale = 0;    // 0: 1 / sqrt(width of a query head)
  double score_softcap = 0;
  bool sinks = false;
  bool output_gate = false;  // what heads attended to, times sigmoid of one more projection
  LatentSpec latent;
  nn::DeltaShape delta;  // of recurrent layers

  nn::Gate gate;
  bool gated = true;  // false: down(activation(up x))
  bool mlp_bias = false;
  ExpertSpec experts;

  bool tied_head = false;
  double logit_multiplier = 1;
  double logit_softcap = 0;
  bool normalised_head = false;
  bool scalar_head = false;  // one score for a position instead of a vocabulary: reward models, critics
  std::vector<LayerSpec> layers;  // empty: all alike; those of multi-token prediction come last
  // Layers of multi-token prediction that are held, each a block behind a projection of [embedding; hidden state]. They share
  // embedding and head; generation does not run them.
  int64_t mtp_layers = 0;
  int64_t mtp_offered = 0;  // so many the folder has
  std::vector<uint32_t> eos_token_ids;

  // By the matrix that is updated, without ".weight". Where there are any they alone are trained, and a scalar head.
  std::map<std::string, LoraShape> lora;
  std::set<std::string> saved;   // of those beneath them, parameters that are trained whole (PEFT's modules_to_save)
  std::set<std::string> frozen;  // parameters that are not trained
  // Of the matrices beneath low-rank updates, but for embeddings, head, routers and convolutions.
  weights::Quantisation quantisation = weights::Quantisation::kNone;

  int64_t state_dim() const { return embedding_dim > 0 ? embedding_dim : model_dim; }  // of what Hidden() gives
  LayerSpec layer(int64_t n) const { return layers.empty() ? LayerSpec() : layers[n]; }
  int64_t routers_before(int64_t layer) const {  // sparse layers
    int64_t count = 0;
    for (int64_t n = 0; n < layer; ++n) count += this->layer(n).sparse;
    return count;
  }
  bool recurrent() const {  // some layer is
    return std::any_of(layers.begin(), layers.end(), [](const LayerSpec& l) { return l.recurrent; });
  }
  // Whether sequences may be packed behind one copy of their prompt: not through recurrent layers, whose state is
  // no sum over keys, nor where the auxiliary loss of experts counts every copy.
  bool shares_prompts() const { return !recurrent() && experts.balance == 0; }
  double attention_scale() const;
};

}  // namespace rein::models

// DecoderSpec is the shape of a pre-norm decoder with grouped-query attention and a gated MLP, as read
// from a Hugging Face config.json. A flag stands here only if two families differ in it.

#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace rein::models {

// How rotary frequencies are stretched beyond the context of pre-training.
struct RopeScaling {
  enum class Kind { kNone, kLinear, kLlama3 };
  Kind kind = Kind::kNone;
  double factor = 1;
  double low_freq_factor = 1;   // kLlama3
  double high_freq_factor = 4;  // kLlama3
  int64_t original_max_positions = 0;
};

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
  double norm_epsilon = 1e-6;
  double rope_theta = 10000;
  RopeScaling rope_scaling;
  bool qkv_bias = false;
  bool output_bias = false;  // of the attention's output projection
  bool mlp_bias = false;
  bool qk_norm = false;  // RMSNorm over each head of q and k, before the rotation
  bool tied_head = false;
  bool scalar_head = false;  // one score for a position instead of a vocabulary: reward models, critics
  std::vector<uint32_t> eos_token_ids;
};

}  // namespace rein::models

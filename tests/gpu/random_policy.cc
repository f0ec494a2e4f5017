#include "tests/gpu/random_policy.h"

#include <ATen/ATen.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>

namespace rein::gpu {
namespace {

// In `keys` a text that begins with $ is a number of the shape.
const ShapeOfModel kShapes[] = {
    {"qwen3-0.6b", "Qwen3ForCausalLM", "qwen3", 28, 1024, 16, 8, 128, 3072, 151936},
    {"qwen3-1.7b", "Qwen3ForCausalLM", "qwen3", 28, 2048, 16, 8, 128, 6144, 151936},
    {"qwen3-4b", "Qwen3ForCausalLM", "qwen3", 36, 2560, 32, 8, 128, 9728, 151936},
    {"qwen3-8b", "Qwen3ForCausalLM", "qwen3", 36, 4096, 32, 8, 128, 12288, 151936, false},
    {"qwen3-14b", "Qwen3ForCausalLM", "qwen3", 40, 5120, 40, 8, 128, 17408, 151936, false},
    {"qwen2.5-0.5b", "Qwen2ForCausalLM", "qwen2", 24, 896, 14, 2, 64, 4864, 151936},
    {"qwen2.5-1.5b", "Qwen2ForCausalLM", "qwen2", 28, 1536, 12, 2, 128, 8960, 151936},
    {"qwen2.5-7b", "Qwen2ForCausalLM", "qwen2", 28, 3584, 28, 4, 128, 18944, 152064, false},
    {"llama3.2-1b", "LlamaForCausalLM", "llama", 16, 2048, 32, 8, 64, 8192, 128256},
    {"smollm2-135m", "LlamaForCausalLM", "llama", 30, 576, 9, 3, 64, 1536, 49152},
    {"qwen3-30b-a3b-4l", "Qwen3MoeForCausalLM", "qwen3_moe", 4, 2048, 32, 4, 128, 6144, 151936, false, 128, 8, 768},
    {"mixtral-small-4l", "MixtralForCausalLM", "mixtral", 4, 2048, 16, 4, 128, 3584, 32000, false, 8, 2, 3584},
    {"olmoe-1b-7b-4l", "Qwen3MoeForCausalLM", "qwen3_moe", 4, 2048, 16, 16, 128, 1024, 50304, false, 64, 8, 1024},
    {"small-qwen2", "Qwen2ForCausalLM", "qwen2", 4, 896, 14, 2, 64, 2432, 32000, true, 0, 0, 0,
     R"({"use_sliding_window": true, "sliding_window": 90, "max_window_layers": 2})"},
    {"small-qwen3", "Qwen3ForCausalLM", "qwen3", 4, 1024, 8, 4, 128, 2816, 32000},
    {"small-mixtral", "MixtralForCausalLM", "mixtral", 4, 1024, 8, 2, 128, 1792, 32000, false, 8, 2, 1792},
    {"small-qwen3-moe", "Qwen3MoeForCausalLM", "qwen3_moe", 4, 1024, 8, 2, 128, 2816, 32000, false, 16, 4, 512},
    {"small-mistral", "MistralForCausalLM", "mistral", 4, 1024, 16, 4, 64, 2816, 32000, false, 0, 0, 0,
     R"({"sliding_window": 100})"},
    {"small-smollm3", "SmolLM3ForCausalLM", "smollm3", 4, 1024, 8, 2, 128, 2816, 32000, true, 0, 0, 0,
     R"({"no_rope_layer_interval": 2})"},
    {"small-gemma2", "Gemma2ForCausalLM", "gemma2", 4, 1024, 4, 2, 256, 2816, 32000, true, 0, 0, 0,
     R"({"hidden_activation": "gelu_pytorch_tanh", "sliding_window": 70, "attn_logit_softcapping": 50.0,
         "final_logit_softcapping": 30.0, "query_pre_attn_scalar": 256})"},
    {"small-gemma3", "Gemma3ForCausalLM", "gemma3_text", 4, 1024, 4, 1, 256, 2816, 32000, true, 0, 0, 0,
     R"({"hidden_activation": "gelu_pytorch_tanh", "sliding_window": 70, "sliding_window_pattern": 3,
         "query_pre_attn_scalar": 256, "rope_local_base_freq": 10000.0})"},
    {"small-phi3", "Phi3ForCausalLM", "phi3", 4, 768, 8, 8, 96, 2048, 32064, false, 0, 0, 0, R"({"sliding_window": 150})"},
    {"small-phi4-mini", "Phi3ForCausalLM", "phi3", 4, 1024, 8, 2, 128, 2048, 32064, true, 0, 0, 0,
     R"({"partial_rotary_factor": 0.75})"},
    {"small-olmo2", "Olmo2ForCausalLM", "olmo2", 4, 1024, 8, 4, 128, 2816, 32000, false},
    {"small-granite", "GraniteForCausalLM", "granite", 4, 1024, 16, 4, 64, 2816, 49155, true, 0, 0, 0,
     R"({"embedding_multiplier": 12.0, "attention_multiplier": 0.015625, "residual_multiplier": 0.22, "logits_scaling": 6.0})"},
    {"small-glm", "GlmForCausalLM", "glm", 4, 1024, 8, 2, 128, 2816, 32000, false, 0, 0, 0,
     R"({"partial_rotary_factor": 0.5, "attention_bias": true})"},
    {"small-glm4", "Glm4ForCausalLM", "glm4", 4, 1024, 8, 2, 128, 2816, 32000, false, 0, 0, 0,
     R"({"partial_rotary_factor": 0.5, "attention_bias": true})"},
    {"small-qwen2-moe", "Qwen2MoeForCausalLM", "qwen2_moe", 4, 1024, 8, 8, 128, 2816, 32000, false, 16, 4, 512,
     R"({"num_experts": "$experts", "moe_intermediate_size": "$expert_ffn", "shared_expert_intermediate_size": "$ffn"})"},
    {"small-olmoe", "OlmoeForCausalLM", "olmoe", 4, 1024, 8, 8, 128, 512, 32000, false, 16, 4, 512, R"({"num_experts": "$experts"})"},
    {"small-glm4-moe", "Glm4MoeForCausalLM", "glm4_moe", 4, 1024, 8, 2, 128, 2048, 32000, false, 16, 4, 512,
     R"({"n_routed_experts": "$experts", "moe_intermediate_size": "$expert_ffn", "n_shared_experts": 1, "first_k_dense_replace": 1,
         "use_qk_norm": true, "attention_bias": true, "partial_rotary_factor": 0.5, "routed_scaling_factor": 1.5,
         "norm_topk_prob": true})"},
    {"small-gpt-oss", "GptOssForCausalLM", "gpt_oss", 4, 1024, 16, 2, 64, 512, 32000, false, 16, 4, 512,
     R"({"num_local_experts": "$experts", "sliding_window": 128, "swiglu_limit": 7.0, "attention_bias": true})"},
    {"small-starcoder2", "Starcoder2ForCausalLM", "starcoder2", 4, 1024, 8, 2, 128, 4096, 49152, true, 0, 0, 0,
     R"({"architectures": ["Starcoder2ForCausalLM"], "model_type": "starcoder2", "num_hidden_layers": "$layers", "hidden_size": "$width",
         "num_attention_heads": "$heads", "num_key_value_heads": "$kv_heads", "intermediate_size": "$ffn", "vocab_size": "$vocabulary",
         "max_position_embeddings": 16384, "norm_epsilon": 1e-5, "hidden_act": "gelu_pytorch_tanh", "use_bias": true,
         "rope_theta": 100000.0, "sliding_window": 200, "eos_token_id": 0, "tie_word_embeddings": true})"},
    {"small-gpt2", "GPT2LMHeadModel", "gpt2", 4, 1024, 16, 16, 64, 4096, 50257, true, 0, 0, 0,
     R"({"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "n_layer": "$layers", "n_embd": "$width", "n_head": "$heads",
         "n_positions": 4096, "vocab_size": "$vocabulary", "layer_norm_epsilon": 1e-5, "activation_function": "gelu_new",
         "eos_token_id": 0})"},
    {"small-gpt-bigcode", "GPTBigCodeForCausalLM", "gpt_bigcode", 4, 1536, 24, 1, 64, 4096, 49152, true, 0, 0, 0,
     R"({"architectures": ["GPTBigCodeForCausalLM"], "model_type": "gpt_bigcode", "n_layer": "$layers", "n_embd": "$width", "n_head": "$heads",
         "n_inner": "$ffn", "multi_query": true, "n_positions": 4096, "vocab_size": "$vocabulary", "layer_norm_epsilon": 1e-5,
         "activation_function": "gelu_pytorch_tanh", "eos_token_id": 0})"},
    {"small-opt", "OPTForCausalLM", "opt", 4, 1024, 16, 16, 64, 4096, 50272, true, 0, 0, 0,
     R"({"architectures": ["OPTForCausalLM"], "model_type": "opt", "num_hidden_layers": "$layers", "hidden_size": "$width",
         "num_attention_heads": "$heads", "ffn_dim": "$ffn", "max_position_embeddings": 4096, "vocab_size": "$vocabulary",
         "word_embed_proj_dim": 512, "activation_function": "relu", "eos_token_id": 0})"},
    {"small-bloom", "BloomForCausalLM", "bloom", 4, 1024, 16, 16, 64, 4096, 32000, true, 0, 0, 0,
     R"({"architectures": ["BloomForCausalLM"], "model_type": "bloom", "n_layer": "$layers", "hidden_size": "$width", "n_head": "$heads",
         "seq_length": 4096, "vocab_size": "$vocabulary", "layer_norm_epsilon": 1e-5, "eos_token_id": 0})"},
    {"small-falcon-7b", "FalconForCausalLM", "falcon", 4, 1472, 23, 1, 64, 5888, 65024, true, 0, 0, 0,
     R"({"architectures": ["FalconForCausalLM"], "model_type": "falcon", "num_hidden_layers": "$layers", "hidden_size": "$width",
         "num_attention_heads": "$heads", "multi_query": true, "parallel_attn": true, "new_decoder_architecture": false,
         "bias": false, "alibi": false, "max_position_embeddings": 4096, "vocab_size": "$vocabulary", "eos_token_id": 0})"},
    {"small-baichuan2-13b", "BaichuanForCausalLM", "baichuan", 4, 1024, 8, 8, 128, 2816, 32000, false, 0, 0, 0,
     R"({"architectures": ["BaichuanForCausalLM"], "model_type": "baichuan", "hidden_size": "$width", "intermediate_size": "$ffn",
         "num_hidden_layers": "$layers", "num_attention_heads": "$heads", "vocab_size": "$vocabulary", "rms_norm_eps": 1e-6, "hidden_act": "silu",
         "tie_word_embeddings": false, "model_max_length": 4096, "z_loss_weight": 0, "eos_token_id": 0})"},
    {"other-deepseek-v2", "DeepseekV2ForCausalLM", "deepseek_v2", 4, 1024, 8, 8, 128, 2816, 32000, false, 16, 4, 512,
     R"({"architectures": ["DeepseekV2ForCausalLM"], "model_type": "deepseek_v2", "num_hidden_layers": "$layers",
         "hidden_size": "$width", "num_attention_heads": "$heads", "intermediate_size": "$ffn", "vocab_size": "$vocabulary",
         "max_position_embeddings": 32768, "rms_norm_eps": 1e-6, "hidden_act": "silu", "eos_token_id": 0,
         "tie_word_embeddings": false, "kv_lora_rank": 512, "q_lora_rank": null, "qk_nope_head_dim": 128,
         "qk_rope_head_dim": 64, "v_head_dim": 128, "n_routed_experts": "$experts", "num_experts_per_tok": 4,
         "moe_intermediate_size": "$expert_ffn", "n_shared_experts": 1, "first_k_dense_replace": 1, "topk_method": "greedy",
         "n_group": null, "topk_group": null, "norm_topk_prob": false, "routed_scaling_factor": 1.0})"},
    {"other-deepseek-v3", "DeepseekV3ForCausalLM", "deepseek_v3", 4, 1024, 8, 8, 128, 2816, 32000, false, 16, 4, 512,
     R"({"architectures": ["DeepseekV3ForCausalLM"], "model_type": "deepseek_v3", "num_hidden_layers": "$layers",
         "hidden_size": "$width", "num_attention_heads": "$heads", "intermediate_size": "$ffn", "vocab_size": "$vocabulary",
         "max_position_embeddings": 32768, "rms_norm_eps": 1e-6, "hidden_act": "silu", "eos_token_id": 0,
         "tie_word_embeddings": false, "kv_lora_rank": 512, "q_lora_rank": 768, "qk_nope_head_dim": 128,
         "qk_rope_head_dim": 64, "v_head_dim": 128, "n_routed_experts": "$experts", "num_experts_per_tok": 4,
         "moe_intermediate_size": "$expert_ffn", "n_shared_experts": 1, "first_k_dense_replace": 1, "n_group": 4,
         "topk_group": 2, "norm_topk_prob": true, "routed_scaling_factor": 2.5})"},
    {"other-qwen3-next", "Qwen3NextForCausalLM", "qwen3_next", 4, 1024, 4, 2, 256, 2816, 32000, false, 16, 4, 512,
     R"({"architectures": ["Qwen3NextForCausalLM"], "model_type": "qwen3_next", "num_hidden_layers": "$layers",
         "hidden_size": "$width", "num_attention_heads": "$heads", "num_key_value_heads": "$kv_heads", "head_dim": 256,
         "intermediate_size": "$ffn", "vocab_size": "$vocabulary", "max_position_embeddings": 32768, "rms_norm_eps": 1e-6,
         "hidden_act": "silu", "eos_token_id": 0, "tie_word_embeddings": false, "partial_rotary_factor": 0.25,
         "linear_conv_kernel_dim": 4, "linear_key_head_dim": 128, "linear_num_key_heads": 8, "linear_num_value_heads": 16,
         "linear_value_head_dim": 128, "num_experts": "$experts", "num_experts_per_tok": 4,
         "moe_intermediate_size": "$expert_ffn", "shared_expert_intermediate_size": "$expert_ffn", "norm_topk_prob": true})"},
};

template <typename T>
T Must(absl::StatusOr<T> value) {
  if (value.ok()) return *std::move(value);
  std::fprintf(stderr, "%s\n", std::string(value.status().message()).c_str());
  std::abort();
}

void Must(const absl::Status& status) {
  if (status.ok()) return;
  std::fprintf(stderr, "%s\n", std::string(status.message()).c_str());
  std::abort();
}

}  // namespace

const ShapeOfModel* FindShape(const std::string& name) {
  for (const ShapeOfModel& shape : kShapes) {
    if (shape.name == name) return &shape;
  }
  return nullptr;
}

std::vector<std::string> ShapeNames(const std::string& prefix) {
  std::vector<std::string> names;
  for (const ShapeOfModel& shape : kShapes) {
    if (shape.name.starts_with(prefix)) names.push_back(shape.name);
  }
  return names;
}

std::string WriteModelFolder(const ShapeOfModel& shape, int64_t layers) {
  const auto folder = std::filesystem::temp_directory_path() / ("rein-shape-" + shape.name);
  std::filesystem::create_directories(folder);
  nlohmann::json config = {{"architectures", {shape.architecture}},
                           {"model_type", shape.model_type},
                           {"num_hidden_layers", layers > 0 ? layers : shape.layers},
                           {"hidden_size", shape.width},
                           {"num_attention_heads", shape.heads},
                           {"num_key_value_heads", shape.kv_heads},
                           {"head_dim", shape.head_dim},
                           {"intermediate_size", shape.ffn},
                           {"vocab_size", shape.vocabulary},
                           {"max_position_embeddings", 32768},
                           {"rms_norm_eps", 1e-6},
                           {"rope_theta", 1000000.0},
                           {"hidden_act", "silu"},
                           {"eos_token_id", 0},
                           {"tie_word_embeddings", shape.tied}};
  if (shape.experts > 0) config["num_experts_per_tok"] = shape.chosen;
  if (shape.model_type == "mixtral") config["num_local_experts"] = shape.experts;
  if (shape.model_type == "qwen3_moe") {
    config.update({{"num_experts", shape.experts}, {"moe_intermediate_size", shape.expert_ffn}, {"norm_topk_prob", true}});
  }
  if (!shape.keys.empty()) {
    auto keys = nlohmann::json::parse(shape.keys);
    const std::map<std::string, int64_t> numbers = {
        {"$layers", layers > 0 ? layers : shape.layers}, {"$width", shape.width}, {"$heads", shape.heads},
        {"$kv_heads", shape.kv_heads}, {"$ffn", shape.ffn}, {"$vocabulary", shape.vocabulary}, {"$experts", shape.experts},
        {"$expert_ffn", shape.expert_ffn}};
    for (auto& value : keys) {
      if (value.is_string() && value.get<std::string>().starts_with('$')) value = numbers.at(value.get<std::string>());
    }
    if (keys.contains("architectures")) config = keys;
    config.update(keys);
  }
  if (config.contains("hidden_activation")) config.erase("hidden_act");
  std::ofstream(folder / "config.json") << config.dump(2);
  return folder;
}

RandomPolicy::RandomPolicy(const std::string& folder, trainer::TrainerSettings settings,
                           trainer::Algorithm algorithm, bool with_generator)
    : group_(parallel::SingleProcess()), text_(Must(text::ModelText::Load(folder))) {
  settings.model_path = folder;
  settings.random_weights = true;
  settings.device = "cuda:0";
  trainer_ = Must(trainer::PolicyTrainer::Create(settings, std::move(algorithm), *group_));
  if (!with_generator) return;
  slots_ = Must(policy::PolicySlots::Create(trainer_->model().spec,
                                            {.device = at::Device(at::kCUDA, 0)}));
  Publish();
}

void RandomPolicy::Publish() {
  const weights::DeviceMemory idle = Must(slots_->IdleDeviceMemory());
  const at::Tensor& compute = trainer_->compute();
  at::from_blob(idle.arena, compute.sizes(), compute.options()).copy_(compute);
  Must(slots_->TakeIntoUse({1, version_++}, weights::InFlight::kContinue));
}

}  // namespace rein::gpu

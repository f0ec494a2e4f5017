#include "tests/gpu/random_policy.h"

#include <ATen/ATen.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

namespace rein::gpu {
namespace {

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

// A model family: how its config.json becomes a DecoderSpec, and what its checkpoint calls each parameter.
//
//   const ModelFamily* family = FindFamily("Qwen3ForCausalLM");   // null when unknown
//
// To add one: a file x.cc that defines `const ModelFamily kX`, and its line in registry.cc.

#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/models/decoder_spec.h"

namespace rein::models {

struct ModelFamily {
  const char* architecture;  // config.json "architectures"[0]
  const char* model_type;    // config.json "model_type"
  // Reads what the family adds to the shared keys; INVALID_ARGUMENT names the key.
  absl::Status (*parse)(const nlohmann::json& config, DecoderSpec* spec);
  // Logical name -> name in the checkpoint.
  std::string (*checkpoint_name)(absl::string_view parameter);
};

const ModelFamily* FindFamily(absl::string_view architecture);
std::vector<const ModelFamily*> AllFamilies();

// Reads the keys that Llama-like families share, then asks the family.
absl::StatusOr<DecoderSpec> ParseConfig(const ModelFamily& family, const nlohmann::json& config);

// layers.3.attention.q.weight -> model.layers.3.self_attn.q_proj.weight, and so on.
std::string LlamaCheckpointName(absl::string_view parameter);

}  // namespace rein::models

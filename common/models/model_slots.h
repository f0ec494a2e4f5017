// ModelSlots holds a model for a role that receives its weights: one arena in use, one idle, a Decoder
// over each. New weights are written into the idle one and swapped in between two steps.
//
//   REIN_ASSIGN_OR_RETURN(auto slots, ModelSlots::Create({.path = folder}));
//   REIN_RETURN_IF_ERROR(slots->LoadFromFolder());        // one-shot modes; services receive instead
//   slots->active().Hidden(...)                           // by the one thread that steps
//   slots->Swap();                                        // by the same thread, between two steps
//
// Filling the idle slot is safe while another thread uses the active one.

#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/models/decoder.h"
#include "common/models/model_folder.h"
#include "common/weights/registry.h"
#include "common/weights/weight_plan.h"

namespace rein::models {

struct ModelSlotsOptions {
  std::string path;            // Hugging Face folder, or its config.json
  std::string device = "cpu";  // cpu or cuda:N
  std::string dtype;           // float32 or bfloat16; empty: float32 on the CPU, bfloat16 on a GPU
  bool one_slot = false;       // no idle slot: weights come from the folder only
};

class ModelSlots {
 public:
  static absl::StatusOr<std::unique_ptr<ModelSlots>> Create(const ModelSlotsOptions& options);

  // Fills the slot in use from the folder's safetensors.
  absl::Status LoadFromFolder();

  const Decoder& active() const { return *decoders_[active_]; }
  void Swap() { active_ = 1 - active_; }

  // Copies into the idle slot.
  absl::Status WriteIdle(uint64_t offset_bytes, const char* bytes, size_t size);
  absl::StatusOr<std::vector<uint64_t>> IdleDigests() const;

  const ModelDescription& model() const { return model_; }
  const weights::Registry& registry() const { return registry_; }
  const weights::WeightPlan& plan() const { return plan_; }

 private:
  ModelSlots() = default;

  std::string path_;
  ModelDescription model_;
  weights::Registry registry_;
  weights::WeightPlan plan_;
  std::vector<at::Tensor> arenas_;
  std::vector<std::unique_ptr<Decoder>> decoders_;
  size_t active_ = 0;
};

// Digest of each parameter of a flat arena, in registry order.
std::vector<uint64_t> ArenaDigests(const weights::Registry& registry, const at::Tensor& arena);

// "float32" or "bfloat16" for `dtype` on `device`; INVALID_ARGUMENT for anything else.
absl::StatusOr<std::string> ComputeDtype(const std::string& dtype, const std::string& device);

}  // namespace rein::models

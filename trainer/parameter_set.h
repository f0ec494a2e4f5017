// ParameterSet is a model that is trained: its weights, gradients, optimizer state, and the decoder over them.
//
//   Create ( decoder() passes that add to the gradients, Step )*
//
// Gradients, master weights and moments exist for what is trained alone: low-rank updates, or what is not frozen. Master
// weights and moments may be kept in host memory, which changes no bit of what comes out.
// With several ranks every rank holds all weights and its slice of the optimizer's state; Create, Step, Gather
// and Restore are made by all ranks together. Not thread-safe.

#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include <ATen/core/Tensor.h>

#include "common/models/decoder.h"
#include "common/models/lora.h"
#include "common/models/model_folder.h"
#include "common/parallel/process_group.h"
#include "common/weights/registry.h"
#include "trainer/optim/adamw.h"

namespace rein::trainer {

struct ParameterSource {
  std::string path;     // Hugging Face or PEFT adapter folder; or a config for random weights
  bool random = false;
  uint64_t seed = 1;
  bool scalar_head = false;  // one score instead of a vocabulary, also where the folder has none
  models::TrainedChoice trained = {};
};

// How the optimizer's state is kept.
struct OptimizerPlacement {
  bool narrow_moments = false;  // bf16
  double offload = 0;           // share in pinned host memory, 0 to 1; of bf16 weights on a GPU only
};

// Whole optimizer arenas on the CPU, of the trained part.
struct Arenas {
  at::Tensor master, moment1, moment2;
};

class ParameterSet {
 public:
  // `device` is cpu or cuda:N, `dtype` float32 or bfloat16. INVALID_ARGUMENT or NOT_FOUND for a bad model
  // folder, RESOURCE_EXHAUSTED when memory does not suffice. `group` must outlive the set.
  static absl::StatusOr<std::unique_ptr<ParameterSet>> Create(const ParameterSource& source,
                                                              const std::string& device,
                                                              const std::string& dtype,
                                                              const OptimizerPlacement& placement,
                                                              parallel::ProcessGroup& group);

  const models::ModelDescription& model() const { return model_; }
  const weights::Registry& registry() const { return registry_; }
  const models::Decoder& decoder() const { return *decoder_; }
  const at::Tensor& compute() const { return compute_; }
  models::ArenaParts parts() const { return WithQuantised(models::PartsOf(registry_, compute_)); }
  uint64_t frozen_digest() const { return frozen_digest_; }  // of what is not trained; 0: everything is
  at::Tensor& grad() { return grad_; }

  // A step's own change of a parameter that is trained and has no gradient.
  struct Shift {
    std::string parameter;
    at::Tensor by;  // fp32, of the parameter's shape, on the CPU
  };

  // Sums gradients over ranks, clips them to `max_grad_norm` (0: never), makes optimizer step number `step`
  // (from 1), adds the shifts, which must be equal on all ranks, and clears the gradients. Returns the norm before clipping; ABORTED when it is not finite, with nothing
  // changed but the gradients.
  absl::StatusOr<double> Step(const AdamWSettings& settings, double learning_rate,
                              double max_grad_norm, int64_t step, const std::vector<Shift>& shifts = {});

  // What several steps need to be undone together.
  struct Snapshot {
    at::Tensor trained;
    std::vector<Arenas> optimizer;
  };
  Snapshot Copy() const;
  // Also clears the gradients; of an empty snapshot it does only that.
  void Undo(const Snapshot& snapshot);

  absl::StatusOr<Arenas> Gather();
  absl::Status Restore(const Arenas& arenas);

 private:
  ParameterSet(models::ModelDescription model, weights::Registry registry,
               parallel::ProcessGroup& group)
      : model_(std::move(model)), registry_(std::move(registry)), group_(group) {}
  absl::Status Allocate(const ParameterSource& source, const std::string& device,
                        const std::string& dtype, const OptimizerPlacement& placement);
  at::Tensor GradOf(const weights::Parameter& parameter) const {
    return grad_.narrow(0, parameter.offset - registry_.trained_begin(), parameter.elements);
  }
  models::ArenaParts WithQuantised(models::ArenaParts parts) const {
    parts.quantised = quantised_;
    return parts;
  }
  void Add(const Shift& shift);  // to this rank's slice
  // A rank's slice of a tensor of the trained part.
  at::Tensor SliceOf(const at::Tensor& trained, int rank) const;

  models::ModelDescription model_;
  weights::Registry registry_;
  parallel::ProcessGroup& group_;
  at::Tensor compute_;  // whole
  models::QuantisedParts quantised_;
  at::Tensor grad_;     // of the trained part
  uint64_t frozen_digest_ = 0;
  std::vector<OptimizerState> optimizer_;  // this rank's slice: what is on the device, then what is in host memory
  std::unique_ptr<models::Decoder> decoder_;
};

}  // namespace rein::trainer

// ParameterSet is a model that is trained: its weights, gradients, optimizer state, and the decoder over them.
//
//   Create ( decoder() passes that add to the gradients, Step )*
//
// With several ranks every rank holds all weights and its slice of the optimizer's state; Create, Step, Gather
// and Restore are made by all ranks together. Not thread-safe.

#pragma once

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include <ATen/core/Tensor.h>

#include "common/models/decoder.h"
#include "common/models/model_folder.h"
#include "common/parallel/process_group.h"
#include "common/weights/registry.h"
#include "trainer/optim/adamw.h"

namespace rein::trainer {

struct ParameterSource {
  std::string path;     // Hugging Face folder; or a config for random weights
  bool random = false;
  uint64_t seed = 1;
  bool scalar_head = false;  // one score instead of a vocabulary, also where the folder has none
};

// Whole optimizer arenas on the CPU.
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
                                                              parallel::ProcessGroup& group);

  const models::ModelDescription& model() const { return model_; }
  const weights::Registry& registry() const { return registry_; }
  const models::Decoder& decoder() const { return *decoder_; }
  const at::Tensor& compute() const { return compute_; }
  at::Tensor& grad() { return grad_; }

  // Sums gradients over ranks, clips them to `max_grad_norm` (0: never), makes optimizer step number `step`
  // (from 1) and clears them. Returns the norm before clipping; ABORTED when it is not finite, with nothing
  // changed but the gradients.
  absl::StatusOr<double> Step(const AdamWSettings& settings, double learning_rate,
                              double max_grad_norm, int64_t step);

  // What several steps need to be undone together.
  struct Snapshot {
    at::Tensor compute, master, moment1, moment2;
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
                        const std::string& dtype);

  models::ModelDescription model_;
  weights::Registry registry_;
  parallel::ProcessGroup& group_;
  at::Tensor compute_, grad_;
  OptimizerState optimizer_;  // this rank's slice
  std::unique_ptr<models::Decoder> decoder_;
};

}  // namespace rein::trainer

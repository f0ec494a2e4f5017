// Training checkpoints: a Hugging Face folder that also holds what a resumed run needs to continue bit
// for bit.
//
//   config.json, model.safetensors, tokenizer files   the weights in use; loads in `transformers`
//   adapter_config.json, adapter_model.safetensors    instead, where low-rank updates are trained; loads in `peft`
//   optimizer.safetensors   moment1/<name>, moment2/<name> of what is trained, and master/<name> unless the weights are all of it (fp32)
//   critic.safetensors      master, moment1 and moment2 of PPO's critic
//   trainer.json            Updates consumed, optimizer steps, digest
//   controller_state.bin    opaque: the controller's data cursor and ledger position
//   manifest.json           size and digest of every file above
//
// The folder is durable, or absent (see common/checkpoint). Tensors are whole, so a checkpoint resumes
// under another number of ranks.

#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "trainer/policy_trainer.h"

namespace rein::trainer {

struct CheckpointExtras {
  std::string controller_state;
  std::string tokenizer_folder;  // where the tokenizer's files are copied from; empty: none
  bool export_only = false;      // weights only
};

// Every rank calls it; rank 0 writes. Total bytes (0 on other ranks). ALREADY_EXISTS when `path` exists; RESOURCE_EXHAUSTED when the disk is full.
absl::StatusOr<uint64_t> SaveCheckpoint(PolicyTrainer& trainer, const std::string& path,
                                        const CheckpointExtras& extras);

// Restores `trainer` (of the same model) and returns the controller's state. DATA_LOSS when a file does
// not match the manifest; INVALID_ARGUMENT when a tensor does not fit.
absl::StatusOr<std::string> RestoreCheckpoint(PolicyTrainer& trainer, const std::string& path);

}  // namespace rein::trainer

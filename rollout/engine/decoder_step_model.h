// DecoderStepModel runs the engine's steps on the decoder that the trainer trains, over paged keys
// and values: in bf16 on a GPU through DeviceStep, else by LibTorch's operations.
//
// On a CPU the number of rows of every matrix product is padded to a multiple of kRowPadding: there
// LibTorch's products give a row the same bits whatever the rows beside it. CheckRowsStable() looks
// whether that holds on this machine.

#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "common/policy/policy_slots.h"
#include "rollout/engine/device_step.h"
#include "rollout/engine/step_model.h"

namespace rein::rollout {

inline constexpr int64_t kRowPadding = 8;

struct KvOptions {
  // Tokens that the pages hold; 0: kDefaultCpuKvTokens on a CPU, else what the free memory takes.
  uint64_t kv_tokens = 0;
  // GPU, with kv_tokens 0: what is left free for others, and the largest steps, whose results need room too.
  uint64_t reserved_bytes = 0;
  int32_t step_tokens = 2048, max_running = 256;
  int32_t page_tokens = 16;
  // Longest sequence; 0: the model's own context.
  uint32_t max_length = 0;
  bool expert_choices = false;  // keep which experts each token goes to
  // GPU: steps that only decode run as captured graphs.
  bool capture = true;
};

inline constexpr uint64_t kDefaultCpuKvTokens = 65536;

class DecoderStepModel final : public StepModel {
 public:
  // `slots` must outlive the model. RESOURCE_EXHAUSTED when the pages do not fit into memory;
  // INVALID_ARGUMENT for a length beyond the model's context.
  static absl::StatusOr<std::unique_ptr<DecoderStepModel>> Create(const policy::PolicySlots& slots,
                                                                  const KvOptions& options);

  StepModelLimits limits() const override { return limits_; }
  uint64_t page_bytes() const { return page_bytes_; }  // of all pages
  uint64_t step_bytes() const { return step_bytes_; }  // that a step's results take at most; 0 on a CPU
  absl::Status Begin(const StepBatch& batch) override;
  absl::StatusOr<Draws> Collect() override;
  absl::StatusOr<std::string> ExpertChoices(const std::vector<int32_t>& pages, size_t tokens) override;

  // OK when a token's logits have the same bits alone and beside many others; else
  // FAILED_PRECONDITION: completions then depend on the load by rounding. Uses the pages, so it
  // must run before the first step.
  absl::Status CheckRowsStable();

 private:
  DecoderStepModel(const policy::PolicySlots& slots, StepModelLimits limits)
      : slots_(slots), limits_(limits) {}

  at::Tensor Hidden(const StepBatch& batch);
  at::Tensor Logits(const at::Tensor& hidden_TD, const StepBatch& batch);
  void Copy(const std::vector<PageCopy>& copies);
  Draws PlainStep(const StepBatch& batch);
  int64_t Padding(int64_t rows) const;

  const policy::PolicySlots& slots_;
  StepModelLimits limits_;
  uint64_t page_bytes_ = 0, step_bytes_ = 0;
  std::vector<nn::KvPages> pages_;
  std::unique_ptr<DeviceStep> device_step_;  // bf16 on a GPU; else the plain path, done at once
  Draws plain_draws_;                        // of the plain path's last step
};

}  // namespace rein::rollout

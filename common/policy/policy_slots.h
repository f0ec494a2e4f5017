// PolicySlots holds the policy of a role that only reads it: the weights in use, and a second arena
// that a weight sync fills meanwhile.
//
//   REIN_ASSIGN_OR_RETURN(auto slots, PolicySlots::Create(model.spec, {.device = at::kCPU}));
//   REIN_RETURN_IF_ERROR(slots->LoadFrozen(folder, model));            // what syncs do not bring
//   weights::WeightReceiver receiver(*slots, clock);      // or: slots->LoadFolder(folder, model)
//   const models::Decoder& decoder = slots->decoder();    // after the first weights
//
// What training leaves alone (spec.lora, spec.frozen) is held once, for both. What arrives goes to the idle slot only. Which slot is in use changes inside TakeIntoUse(), which
// asks `SwapHook` for the right moment: decoder() must not be in use then. Write() and
// IdleDigests() may run beside forward passes.

#pragma once

#include <array>
#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include <ATen/core/Tensor.h>

#include "common/models/decoder.h"
#include "common/models/model_folder.h"
#include "common/weights/registry.h"
#include "common/weights/weight_receiver.h"

namespace rein::policy {

struct SlotOptions {
  at::Device device = at::kCPU;
  // float32 or bfloat16; Undefined: float32 on a CPU, bfloat16 elsewhere.
  at::ScalarType dtype = at::ScalarType::Undefined;
  // False: the second slot's memory is there only during a sync. For weights that seldom change.
  bool keep_idle = true;
};

// Calls `swap` when no forward pass runs, and returns its status.
using SwapHook =
    std::function<absl::Status(const weights::Version& version, weights::InFlight in_flight,
                               const std::function<absl::Status()>& swap)>;

class PolicySlots final : public weights::ReceivingArenas {
 public:
  // INVALID_ARGUMENT for a dtype that the device does not compute in; RESOURCE_EXHAUSTED when the
  // memory does not suffice.
  static absl::StatusOr<std::unique_ptr<PolicySlots>> Create(const models::DecoderSpec& spec,
                                                             const SlotOptions& options);

  // Without a hook a swap happens at once.
  void SetSwapHook(SwapHook hook) { hook_ = std::move(hook); }

  // Takes a folder's weights into use, without any sync; for one-shot modes.
  absl::Status LoadFolder(const std::string& folder, const models::ModelDescription& model);

  // Reads what no sync brings, which is nothing where everything is trained. The other side's must have the same digest.
  absl::Status LoadFrozen(const std::string& folder, const models::ModelDescription& model);

  // Numbers to compute with before any weights came, for checks of the machine; to be called before
  // the first sync. Frozen weights stay.
  absl::Status FillWithPattern();

  const weights::WeightPlan& plan() const override { return plan_; }
  absl::Status Write(uint64_t offset_bytes, const char* bytes, size_t size) override;
  absl::StatusOr<weights::DeviceMemory> IdleDeviceMemory() override;
  absl::StatusOr<std::vector<uint64_t>> IdleDigests() override;
  absl::Status TakeIntoUse(const weights::Version& version, weights::InFlight in_flight) override;

  // A decoder over the slot in use (over zeros before the first weights).
  const models::Decoder& decoder() const { return *slots_[in_use_].decoder; }
  const weights::Registry& registry() const { return registry_; }
  uint64_t bytes() const;  // of all weights, those of both slots
  // Of the weights in use, as the sync agreed on it; 0 before the first. Thread-safe.
  uint64_t digest() const { return digest_; }

 private:
  struct Slot {
    at::Tensor arena;  // the trained part
    std::unique_ptr<models::Decoder> decoder;
  };

  PolicySlots(const models::DecoderSpec& spec, const SlotOptions& options,
              weights::Registry registry);

  absl::StatusOr<at::Tensor> Zeros(int64_t elements) const;
  models::ArenaParts PartsWith(const at::Tensor& trained) const { return {frozen_, trained, quantised_}; }
  absl::Status Fill(Slot& slot);
  absl::StatusOr<Slot*> Idle();

  const models::DecoderSpec spec_;
  const SlotOptions options_;
  const weights::Registry registry_;
  weights::WeightPlan plan_;
  at::Tensor frozen_;
  models::QuantisedParts quantised_;
  SwapHook hook_;
  std::array<Slot, 2> slots_;
  size_t in_use_ = 0;
  uint64_t idle_digest_ = 0;
  std::atomic<uint64_t> digest_ = 0;
};

}  // namespace rein::policy

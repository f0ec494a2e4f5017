#include "common/policy/policy_slots.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include <ATen/ATen.h>

#include "common/models/arena.h"
#include "common/status/status_macros.h"
#include "common/tensor/catch_torch.h"
#include "common/tensor/memory_check.h"
#include "common/weights/digest.h"

namespace rein::policy {

absl::StatusOr<std::unique_ptr<PolicySlots>> PolicySlots::Create(const models::DecoderSpec& spec,
                                                                 const SlotOptions& options) {
  SlotOptions chosen = options;
  const bool cpu = options.device.is_cpu();
  if (chosen.dtype == at::ScalarType::Undefined) chosen.dtype = cpu ? at::kFloat : at::kBFloat16;
  if (chosen.dtype != at::kFloat && (cpu || chosen.dtype != at::kBFloat16)) {
    return absl::InvalidArgumentError(
        absl::StrCat("dtype ", at::toString(chosen.dtype),
                     cpu ? ": a CPU computes in float32 only" : ": want float32 or bfloat16"));
  }
  REIN_ASSIGN_OR_RETURN(weights::Registry registry,
                        weights::Registry::Create(models::DecoderParameters(spec)));
  auto slots = std::unique_ptr<PolicySlots>(new PolicySlots(spec, chosen, std::move(registry)));
  REIN_ASSIGN_OR_RETURN(slots->frozen_, slots->Zeros(slots->registry_.trained_begin()));
  REIN_RETURN_IF_ERROR(tensor::CatchTorch("memory for quantised weights", [&] {
    slots->quantised_ = models::NewQuantised(slots->registry_, options.device);
  }));
  REIN_RETURN_IF_ERROR(slots->Fill(slots->slots_[0]));
  if (options.keep_idle) REIN_RETURN_IF_ERROR(slots->Fill(slots->slots_[1]));
  return slots;
}

PolicySlots::PolicySlots(const models::DecoderSpec& spec, const SlotOptions& options,
                         weights::Registry registry)
    : spec_(spec),
      options_(options),
      registry_(std::move(registry)),
      plan_(weights::PlanOf(registry_, options.dtype == at::kFloat ? "float32" : "bfloat16")) {}

absl::StatusOr<at::Tensor> PolicySlots::Zeros(int64_t elements) const {
  if (options_.device.is_cpu()) {
    REIN_RETURN_IF_ERROR(tensor::CheckHostMemory(
        "the weights", static_cast<uint64_t>(elements) * c10::elementSize(options_.dtype)));
  }
  at::Tensor zeros;
  REIN_RETURN_IF_ERROR(tensor::CatchTorch("memory for the weights", [&] {
    zeros = at::zeros({elements}, at::TensorOptions(options_.dtype).device(options_.device));
  }));
  return zeros;
}

absl::Status PolicySlots::Fill(Slot& slot) {
  REIN_ASSIGN_OR_RETURN(slot.arena, Zeros(registry_.trained_elements()));
  REIN_ASSIGN_OR_RETURN(slot.decoder, models::Decoder::Create(spec_, registry_, PartsWith(slot.arena)));
  return absl::OkStatus();
}

absl::StatusOr<PolicySlots::Slot*> PolicySlots::Idle() {
  Slot& idle = slots_[1 - in_use_];
  if (!idle.arena.defined()) REIN_RETURN_IF_ERROR(Fill(idle));
  return &idle;
}

absl::Status PolicySlots::LoadFolder(const std::string& folder,
                                     const models::ModelDescription& model) {
  const models::ArenaParts parts = PartsWith(slots_[in_use_].arena);
  if (options_.device.is_cpu()) {
    REIN_RETURN_IF_ERROR(models::LoadWeights(folder, model, registry_, parts));
  } else {
    const models::ArenaParts host{at::zeros(frozen_.sizes(), options_.dtype), at::zeros(parts.trained.sizes(), options_.dtype), quantised_};
    REIN_RETURN_IF_ERROR(models::LoadWeights(folder, model, registry_, host));
    REIN_RETURN_IF_ERROR(tensor::CatchTorch("copy of the weights to the device", [&] {
      parts.frozen.copy_(host.frozen);
      parts.trained.copy_(host.trained);
    }));
  }
  REIN_ASSIGN_OR_RETURN(plan_.frozen_digest, models::FrozenDigest(registry_, parts));
  return absl::OkStatus();
}

absl::Status PolicySlots::LoadFrozen(const std::string& folder, const models::ModelDescription& model) {
  return registry_.trains_all() ? absl::OkStatus() : LoadFolder(folder, model);
}

absl::Status PolicySlots::FillWithPattern() {
  return tensor::CatchTorch("pattern in the weights", [&] {
    at::Tensor& arena = slots_[in_use_].arena;
    // Of squares: sines of the indices themselves would make every matrix one of rank 2. Not small: what the experts of a token add
    // must not drown in the rounding of the sum.
    arena.copy_(at::arange(arena.numel(), arena.options().dtype(at::kFloat)).square_().sin_().mul_(0.3));
  });
}

absl::Status PolicySlots::Write(uint64_t offset_bytes, const char* bytes, size_t size) {
  REIN_ASSIGN_OR_RETURN(Slot * idle, Idle());
  return tensor::CatchTorch("weights into the idle slot", [&] {
    at::Tensor target = idle->arena.view(at::kByte).narrow(0, static_cast<int64_t>(offset_bytes),
                                                           static_cast<int64_t>(size));
    target.copy_(at::from_blob(const_cast<char*>(bytes), {static_cast<int64_t>(size)}, at::kByte));
  });
}

absl::StatusOr<weights::DeviceMemory> PolicySlots::IdleDeviceMemory() {
  if (options_.device.is_cpu()) return ReceivingArenas::IdleDeviceMemory();
  REIN_ASSIGN_OR_RETURN(Slot * idle, Idle());
  return weights::DeviceMemory{idle->arena.mutable_data_ptr(), options_.device.index()};
}

absl::StatusOr<std::vector<uint64_t>> PolicySlots::IdleDigests() {
  REIN_ASSIGN_OR_RETURN(Slot * idle, Idle());
  REIN_ASSIGN_OR_RETURN(std::vector<uint64_t> digests,
                        models::ArenaDigests(registry_, idle->arena));
  idle_digest_ = weights::CombineDigests(digests);
  return digests;
}

absl::Status PolicySlots::TakeIntoUse(const weights::Version& version,
                                      weights::InFlight in_flight) {
  REIN_RETURN_IF_ERROR(Idle().status());
  auto swap = [this] {
    in_use_ = 1 - in_use_;
    digest_ = idle_digest_;
    if (!options_.keep_idle) slots_[1 - in_use_] = Slot();
    return absl::OkStatus();
  };
  return hook_ ? hook_(version, in_flight, swap) : swap();
}

uint64_t PolicySlots::bytes() const {
  uint64_t bytes = (frozen_.defined() ? frozen_.nbytes() : 0) + static_cast<uint64_t>(registry_.quantised_bytes());
  for (const Slot& slot : slots_) bytes += slot.arena.defined() ? slot.arena.nbytes() : 0;
  return bytes;
}

}  // namespace rein::policy

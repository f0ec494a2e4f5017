#include "common/models/model_slots.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/status/status_macros.h"
#include "common/tensor/catch_torch.h"
#include "common/weights/digest.h"

namespace rein::models {

absl::StatusOr<std::string> ComputeDtype(const std::string& dtype, const std::string& device) {
  if (dtype.empty()) return std::string(device == "cpu" ? "float32" : "bfloat16");
  if (dtype == "float32" || dtype == "bfloat16") return dtype;
  return absl::InvalidArgumentError(
      absl::StrCat("dtype is '", dtype, "', want float32 or bfloat16"));
}

absl::StatusOr<std::unique_ptr<ModelSlots>> ModelSlots::Create(const ModelSlotsOptions& options) {
  auto slots = std::unique_ptr<ModelSlots>(new ModelSlots);
  slots->path_ = options.path;
  REIN_ASSIGN_OR_RETURN(std::string dtype, ComputeDtype(options.dtype, options.device));
  REIN_ASSIGN_OR_RETURN(slots->model_, DescribeModel(options.path));
  REIN_ASSIGN_OR_RETURN(slots->registry_,
                        weights::Registry::Create(DecoderParameters(slots->model_.spec)));
  slots->plan_ = weights::PlanOf(slots->registry_, dtype);
  REIN_RETURN_IF_ERROR(tensor::CatchTorch("memory of the weights", [&] {
    at::TensorOptions type = at::TensorOptions()
                                 .device(options.device)
                                 .dtype(dtype == "float32" ? at::kFloat : at::kBFloat16);
    for (int i = 0; i < (options.one_slot ? 1 : 2); ++i) {
      slots->arenas_.push_back(at::zeros({slots->registry_.arena_elements()}, type));
    }
  }));
  for (const at::Tensor& arena : slots->arenas_) {
    REIN_ASSIGN_OR_RETURN(slots->decoders_.emplace_back(),
                          Decoder::Create(slots->model_.spec, slots->registry_, arena));
  }
  return slots;
}

absl::Status ModelSlots::LoadFromFolder() {
  absl::Status status;
  REIN_RETURN_IF_ERROR(tensor::CatchTorch("loading of weights", [&] {
    status = LoadWeights(path_, model_, registry_, arenas_[active_]);
  }));
  return status;
}

absl::Status ModelSlots::WriteIdle(uint64_t offset_bytes, const char* bytes, size_t size) {
  at::Tensor& idle = arenas_[1 - active_];
  if (idle.is_cpu()) {
    std::memcpy(static_cast<char*>(idle.mutable_data_ptr()) + offset_bytes, bytes, size);
    return absl::OkStatus();
  }
  return tensor::CatchTorch("copy of weights to the device", [&] {
    at::Tensor source = at::from_blob(const_cast<char*>(bytes), {static_cast<int64_t>(size)}, at::kByte);
    idle.view(at::kByte)
        .narrow(0, static_cast<int64_t>(offset_bytes), static_cast<int64_t>(size))
        .copy_(source);
  });
}

absl::StatusOr<std::vector<uint64_t>> ModelSlots::IdleDigests() const {
  std::vector<uint64_t> digests;
  REIN_RETURN_IF_ERROR(tensor::CatchTorch("digest of weights", [&] {
    digests = ArenaDigests(registry_, arenas_[1 - active_]);
  }));
  return digests;
}

std::vector<uint64_t> ArenaDigests(const weights::Registry& registry, const at::Tensor& arena) {
  at::Tensor host = arena.to(at::kCPU);
  const auto* bytes = static_cast<const char*>(host.const_data_ptr());
  const int64_t width = static_cast<int64_t>(host.element_size());
  const auto& parameters = registry.parameters();
  std::vector<uint64_t> digests(parameters.size());
  at::parallel_for(0, static_cast<int64_t>(parameters.size()), 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      digests[i] = weights::Digest(bytes + parameters[i].offset * width,
                                   static_cast<size_t>(parameters[i].elements * width));
    }
  });
  return digests;
}

}  // namespace rein::models

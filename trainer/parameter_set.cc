#include "trainer/parameter_set.h"

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "common/kernels/host_staging.h"
#include "common/status/status_macros.h"
#include "common/tensor/catch_torch.h"
#include "common/tensor/memory_check.h"

namespace rein::trainer {

using tensor::CatchTorch;

absl::StatusOr<std::unique_ptr<ParameterSet>> ParameterSet::Create(const ParameterSource& source,
                                                                   const std::string& device,
                                                                   const std::string& dtype,
                                                                   const OptimizerPlacement& placement,
                                                                   parallel::ProcessGroup& group) {
  REIN_ASSIGN_OR_RETURN(models::ModelDescription model,
                        models::DescribeTrained(source.path, source.trained, source.scalar_head));
  if (model.spec.scalar_head && !source.scalar_head) {
    return absl::InvalidArgumentError(absl::StrCat(
        source.path, ": is a reward model, which has no vocabulary to write with; want a ...ForCausalLM"));
  }
  REIN_ASSIGN_OR_RETURN(weights::Registry registry,
                        weights::Registry::Create(models::DecoderParameters(model.spec)));
  if (source.random && !registry.trains_all()) {
    return absl::InvalidArgumentError(
        absl::StrCat(source.path, ": random weights are all trained: model.lora and model.freeze want a model with weights"));
  }
  auto set = std::unique_ptr<ParameterSet>(
      new ParameterSet(std::move(model), std::move(registry), group));
  const auto trained = static_cast<double>(set->registry_.trained_elements());
  const double moments = placement.narrow_moments ? 4 : 8;
  if (device == "cpu") {
    REIN_RETURN_IF_ERROR(tensor::CheckHostMemory(
        "weights, gradients and optimizer state",
        static_cast<uint64_t>(4.0 * static_cast<double>(set->registry_.trained_begin()) + (8 + moments) * trained) +
            static_cast<uint64_t>(set->registry_.quantised_bytes())));
  } else if (placement.offload > 0) {
    const double share = placement.offload * (4 + moments) / group.size() + 4;  // the state, and weights while they are read
    REIN_RETURN_IF_ERROR(tensor::CheckHostMemory("offloaded optimizer state", static_cast<uint64_t>(share * trained)));
  }
  absl::Status status;
  REIN_RETURN_IF_ERROR(
      CatchTorch("trainer memory", [&] { status = set->Allocate(source, device, dtype, placement); }));
  REIN_RETURN_IF_ERROR(status);
  return set;
}

at::Tensor ParameterSet::SliceOf(const at::Tensor& trained, int rank) const {
  const weights::Registry::Slice slice = registry_.OptimizerSlice(rank, group_.size());
  return trained.narrow(0, slice.begin - registry_.trained_begin(), slice.end - slice.begin);
}

namespace {

// Pinned host memory.
at::Tensor Pinned(int64_t elements, at::ScalarType dtype) {
  const auto bytes = elements * static_cast<int64_t>(c10::elementSize(dtype));
  void* memory = kernels::AllocatePinned(bytes);
  TORCH_CHECK(memory != nullptr, "the host gives no ", bytes, " bytes of page-locked memory (trainer.offload)");
  return at::from_blob(memory, {elements}, [](void* m) { kernels::FreePinned(m); }, at::TensorOptions(dtype));
}

// Elements of `length` that are kept on the device; a multiple of what keeps the rest aligned.
int64_t KeptOnDevice(int64_t length, double offload) {
  constexpr int64_t kMultiple = 1024;
  const auto kept = static_cast<int64_t>(std::floor((1 - offload) * static_cast<double>(length)));
  return std::min(length, (kept + kMultiple - 1) / kMultiple * kMultiple);
}

}  // namespace

absl::Status ParameterSet::Allocate(const ParameterSource& source, const std::string& device,
                                    const std::string& dtype, const OptimizerPlacement& placement) {
  at::TensorOptions fp32 = at::TensorOptions().device(device).dtype(at::kFloat);
  const bool narrow = dtype == "bfloat16";
  compute_ = at::zeros({registry_.arena_elements()}, narrow ? fp32.dtype(at::kBFloat16) : fp32);
  quantised_ = models::NewQuantised(registry_, compute_.device());
  const auto [frozen, trained, quantised] = parts();
  grad_ = at::zeros(trained.sizes(), fp32);
  // With offloading the master weights are read on the host: the device need not hold them even once.
  const at::TensorOptions read = placement.offload > 0 ? fp32.device(at::kCPU) : fp32;
  const models::ArenaParts whole{frozen, narrow ? at::zeros(trained.sizes(), read) : trained, quantised};
  if (source.random) {
    models::InitializeWeights(model_.spec, registry_, source.seed, whole.trained);
  } else {
    if (!model_.spec.lora.empty()) models::InitializeAdapter(registry_, source.seed, whole);
    REIN_RETURN_IF_ERROR(models::LoadWeights(source.path, model_, registry_, whole));
  }
  // Rounded on the host if it is there, so that the device needs no room for the wider ones.
  if (narrow) trained.copy_(whole.trained.is_cpu() ? whole.trained.to(at::kBFloat16) : whole.trained);
  REIN_ASSIGN_OR_RETURN(frozen_digest_, models::FrozenDigest(registry_, whole));
  const weights::Registry::Slice slice = registry_.OptimizerSlice(group_.rank(), group_.size());
  const int64_t length = slice.end - slice.begin, kept = KeptOnDevice(length, placement.offload);
  const at::ScalarType moments = placement.narrow_moments ? at::kBFloat16 : at::kFloat;
  const at::Tensor master = SliceOf(whole.trained, group_.rank()), rounded = SliceOf(trained, group_.rank());
  if (kept > 0) {
    OptimizerState& state = optimizer_.emplace_back();
    state.slice = {slice.begin, slice.begin + kept};
    state.master = master.narrow(0, 0, kept);  // in fp32 a view of the compute arena
    if (narrow && (kept < trained.numel() || !state.master.device().is_cuda())) {
      state.master = state.master.to(fp32, /*non_blocking=*/false, /*copy=*/true);
    }
    if (narrow) state.rounded = rounded.narrow(0, 0, kept);
    state.moment1 = at::zeros({kept}, fp32.dtype(moments));
    state.moment2 = at::zeros({kept}, fp32.dtype(moments));
  }
  if (kept < length) {
    OptimizerState& state = optimizer_.emplace_back();
    state.slice = {slice.begin + kept, slice.end};
    state.master = Pinned(length - kept, at::kFloat);
    state.master.copy_(master.narrow(0, kept, length - kept));
    state.rounded = rounded.narrow(0, kept, length - kept);
    // Now, or it would be cut from the block of the logits, which then would not fit there any more.
    state.staging_memory = at::empty({2 * kStagingBytes}, fp32.dtype(at::kByte));
    for (at::Tensor* moment : {&state.moment1, &state.moment2}) {
      *moment = Pinned(length - kept, moments);
      moment->zero_();
    }
  }
  REIN_ASSIGN_OR_RETURN(decoder_, models::Decoder::Create(model_.spec, registry_, parts(), grad_));
  return absl::OkStatus();
}

void ParameterSet::Add(const Shift& shift) {
  const weights::Parameter& p = *registry_.Find(shift.parameter);
  for (OptimizerState& state : optimizer_) {
    const auto& slice = state.slice;
    const int64_t begin = std::max(p.offset, slice.begin), end = std::min(p.offset + p.elements, slice.end);
    if (begin >= end) continue;
    auto part = [&](const at::Tensor& of) { return of.narrow(0, begin - slice.begin, end - begin); };
    at::Tensor master = part(state.master);
    master.add_(shift.by.narrow(0, begin - p.offset, end - begin).to(master.device()));
    if (state.rounded.defined()) part(state.rounded).copy_(master);
  }
}

absl::StatusOr<double> ParameterSet::Step(const AdamWSettings& settings, double learning_rate,
                                          double max_grad_norm, int64_t step, const std::vector<Shift>& shifts) {
  REIN_RETURN_IF_ERROR(group_.AllReduceSum(grad_));
  double norm = 0;
  at::NoGradGuard no_grad;
  REIN_RETURN_IF_ERROR(CatchTorch("gradient norm", [&] {
    for (const weights::Parameter& p : registry_.parameters()) {  // those that stand among trained neighbours
      if (registry_.InTrainedPart(p) && !p.spec.trained) GradOf(p).zero_();
    }
    norm = std::sqrt(SquaredNorm(grad_));
  }));
  if (!std::isfinite(norm)) {
    for (const weights::Parameter& p : registry_.parameters()) {
      if (!p.spec.trained || std::isfinite(SquaredNorm(GradOf(p)))) continue;
      return absl::AbortedError(
          absl::StrCat("gradient is not finite (first: parameter ", p.spec.name, ")"));
    }
    return absl::AbortedError(absl::StrCat("gradient norm is not finite: ", norm));
  }
  const double scale = max_grad_norm > 0 ? std::min(1.0, max_grad_norm / (norm + 1e-6)) : 1;
  std::vector<at::Tensor> slices;
  REIN_RETURN_IF_ERROR(CatchTorch("optimizer step", [&] {
    for (OptimizerState& state : optimizer_) {
      at::Tensor grad = grad_.narrow(0, state.slice.begin - registry_.trained_begin(), state.slice.end - state.slice.begin);
      AdamWStep(registry_, settings, learning_rate, scale, step, grad, state);
    }
    for (const Shift& shift : shifts) Add(shift);
    for (int rank = 0; rank < group_.size(); ++rank) slices.push_back(SliceOf(parts().trained, rank));
    grad_.zero_();
  }));
  REIN_RETURN_IF_ERROR(group_.AllGather(slices[group_.rank()], slices));
  return norm;
}

ParameterSet::Snapshot ParameterSet::Copy() const {
  Snapshot snapshot{.trained = parts().trained.clone(), .optimizer = {}};
  for (const OptimizerState& state : optimizer_) {
    snapshot.optimizer.push_back({state.master.clone(), state.moment1.clone(), state.moment2.clone()});
  }
  return snapshot;
}

void ParameterSet::Undo(const Snapshot& snapshot) {
  at::NoGradGuard no_grad;
  grad_.zero_();
  if (!snapshot.trained.defined()) return;
  parts().trained.copy_(snapshot.trained);
  for (size_t i = 0; i < optimizer_.size(); ++i) {
    optimizer_[i].master.copy_(snapshot.optimizer[i].master);
    optimizer_[i].moment1.copy_(snapshot.optimizer[i].moment1);
    optimizer_[i].moment2.copy_(snapshot.optimizer[i].moment2);
  }
}

absl::StatusOr<Arenas> ParameterSet::Gather() {
  Arenas arenas;
  for (auto [part, whole] : {std::pair{&OptimizerState::master, &arenas.master},
                             {&OptimizerState::moment1, &arenas.moment1},
                             {&OptimizerState::moment2, &arenas.moment2}}) {
    std::vector<at::Tensor> pieces;
    const at::Device to = group_.size() == 1 ? at::Device(at::kCPU) : grad_.device();
    for (const OptimizerState& state : optimizer_) pieces.push_back((state.*part).to(to, at::kFloat));
    at::Tensor own = pieces.size() == 1 ? pieces[0] : at::cat(pieces);
    if (group_.size() == 1) {
      *whole = own;
      continue;
    }
    at::Tensor gathered = at::zeros({registry_.trained_elements()}, own.options());
    std::vector<at::Tensor> slices;
    for (int rank = 0; rank < group_.size(); ++rank) slices.push_back(SliceOf(gathered, rank));
    REIN_RETURN_IF_ERROR(group_.AllGather(own, slices));
    *whole = gathered.to(at::kCPU);
  }
  return arenas;
}

absl::Status ParameterSet::Restore(const Arenas& arenas) {
  return CatchTorch("restore", [&] {
    at::NoGradGuard no_grad;
    parts().trained.copy_(arenas.master);
    for (OptimizerState& state : optimizer_) {
      auto part = [&](const at::Tensor& whole) {
        return whole.narrow(0, state.slice.begin - registry_.trained_begin(), state.slice.end - state.slice.begin);
      };
      state.master.copy_(part(arenas.master));
      state.moment1.copy_(part(arenas.moment1));
      state.moment2.copy_(part(arenas.moment2));
    }
    grad_.zero_();
  });
}

}  // namespace rein::trainer

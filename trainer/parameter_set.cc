#include "trainer/parameter_set.h"

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "common/status/status_macros.h"
#include "common/tensor/catch_torch.h"
#include "common/tensor/memory_check.h"

namespace rein::trainer {

using tensor::CatchTorch;

absl::StatusOr<std::unique_ptr<ParameterSet>> ParameterSet::Create(const ParameterSource& source,
                                                                   const std::string& device,
                                                                   const std::string& dtype,
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
  if (device == "cpu") {
    constexpr int64_t kArenas = 4;  // weights, gradients, two moments
    REIN_RETURN_IF_ERROR(tensor::CheckHostMemory(
        "weights, gradients and optimizer state",
        sizeof(float) * static_cast<uint64_t>(set->registry_.trained_begin() + kArenas * set->registry_.trained_elements())));
  }
  absl::Status status;
  REIN_RETURN_IF_ERROR(
      CatchTorch("trainer memory", [&] { status = set->Allocate(source, device, dtype); }));
  REIN_RETURN_IF_ERROR(status);
  return set;
}

at::Tensor ParameterSet::SliceOf(const at::Tensor& trained, int rank) const {
  const weights::Registry::Slice slice = registry_.OptimizerSlice(rank, group_.size());
  return trained.narrow(0, slice.begin - registry_.trained_begin(), slice.end - slice.begin);
}

absl::Status ParameterSet::Allocate(const ParameterSource& source, const std::string& device,
                                    const std::string& dtype) {
  at::TensorOptions fp32 = at::TensorOptions().device(device).dtype(at::kFloat);
  const bool narrow = dtype == "bfloat16";
  compute_ = at::zeros({registry_.arena_elements()}, narrow ? fp32.dtype(at::kBFloat16) : fp32);
  const auto [frozen, trained] = parts();
  grad_ = at::zeros(trained.sizes(), fp32);
  const models::ArenaParts whole{frozen, narrow ? at::zeros(trained.sizes(), fp32) : trained};
  if (source.random) {
    models::InitializeWeights(model_.spec, registry_, source.seed, whole.trained);
  } else {
    if (!model_.spec.lora.empty()) models::InitializeAdapter(registry_, source.seed, whole);
    REIN_RETURN_IF_ERROR(models::LoadWeights(source.path, model_, registry_, whole));
  }
  if (narrow) trained.copy_(whole.trained);
  REIN_ASSIGN_OR_RETURN(frozen_digest_, models::FrozenDigest(registry_, frozen));
  optimizer_.slice = registry_.OptimizerSlice(group_.rank(), group_.size());
  const int64_t length = optimizer_.slice.end - optimizer_.slice.begin;
  optimizer_.master = SliceOf(whole.trained, group_.rank());  // in fp32 a view of the compute arena
  if (narrow && length < trained.numel()) optimizer_.master = optimizer_.master.clone();
  if (narrow) optimizer_.rounded = SliceOf(trained, group_.rank());
  optimizer_.moment1 = at::zeros({length}, fp32);
  optimizer_.moment2 = at::zeros({length}, fp32);
  REIN_ASSIGN_OR_RETURN(decoder_, models::Decoder::Create(model_.spec, registry_, compute_, grad_));
  return absl::OkStatus();
}

void ParameterSet::Add(const Shift& shift) {
  const weights::Parameter& p = *registry_.Find(shift.parameter);
  const auto& slice = optimizer_.slice;
  const int64_t begin = std::max(p.offset, slice.begin), end = std::min(p.offset + p.elements, slice.end);
  if (begin >= end) return;
  auto part = [&](const at::Tensor& of) { return of.narrow(0, begin - slice.begin, end - begin); };
  at::Tensor master = part(optimizer_.master);
  master.add_(shift.by.narrow(0, begin - p.offset, end - begin).to(master.device()));
  if (optimizer_.rounded.defined()) part(optimizer_.rounded).copy_(master);
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
    AdamWStep(registry_, settings, learning_rate, scale, step, SliceOf(grad_, group_.rank()), optimizer_);
    for (const Shift& shift : shifts) Add(shift);
    for (int rank = 0; rank < group_.size(); ++rank) slices.push_back(SliceOf(parts().trained, rank));
    grad_.zero_();
  }));
  REIN_RETURN_IF_ERROR(group_.AllGather(slices[group_.rank()], slices));
  return norm;
}

ParameterSet::Snapshot ParameterSet::Copy() const {
  return {parts().trained.clone(), optimizer_.master.clone(), optimizer_.moment1.clone(),
          optimizer_.moment2.clone()};
}

void ParameterSet::Undo(const Snapshot& snapshot) {
  at::NoGradGuard no_grad;
  grad_.zero_();
  if (!snapshot.trained.defined()) return;
  parts().trained.copy_(snapshot.trained);
  optimizer_.master.copy_(snapshot.master);
  optimizer_.moment1.copy_(snapshot.moment1);
  optimizer_.moment2.copy_(snapshot.moment2);
}

absl::StatusOr<Arenas> ParameterSet::Gather() {
  Arenas arenas;
  for (auto [part, whole] : {std::pair{&optimizer_.master, &arenas.master},
                             {&optimizer_.moment1, &arenas.moment1},
                             {&optimizer_.moment2, &arenas.moment2}}) {
    if (group_.size() == 1) {
      *whole = part->to(at::kCPU);
      continue;
    }
    at::Tensor gathered = at::zeros({registry_.trained_elements()}, part->options());
    std::vector<at::Tensor> slices;
    for (int rank = 0; rank < group_.size(); ++rank) slices.push_back(SliceOf(gathered, rank));
    REIN_RETURN_IF_ERROR(group_.AllGather(*part, slices));
    *whole = gathered.to(at::kCPU);
  }
  return arenas;
}

absl::Status ParameterSet::Restore(const Arenas& arenas) {
  return CatchTorch("restore", [&] {
    at::NoGradGuard no_grad;
    parts().trained.copy_(arenas.master);
    optimizer_.master.copy_(SliceOf(arenas.master, group_.rank()));
    optimizer_.moment1.copy_(SliceOf(arenas.moment1, group_.rank()));
    optimizer_.moment2.copy_(SliceOf(arenas.moment2, group_.rank()));
    grad_.zero_();
  });
}

}  // namespace rein::trainer

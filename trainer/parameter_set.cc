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
  REIN_ASSIGN_OR_RETURN(models::ModelDescription model, models::DescribeModel(source.path));
  if (source.scalar_head) {
    REIN_ASSIGN_OR_RETURN(model, models::WithScalarHead(model));
  } else if (model.spec.scalar_head) {
    return absl::InvalidArgumentError(absl::StrCat(
        source.path, ": is a reward model, which has no vocabulary to write with; want a ...ForCausalLM"));
  }
  REIN_ASSIGN_OR_RETURN(weights::Registry registry,
                        weights::Registry::Create(models::DecoderParameters(model.spec)));
  auto set = std::unique_ptr<ParameterSet>(
      new ParameterSet(std::move(model), std::move(registry), group));
  if (device == "cpu") {
    constexpr uint64_t kArenas = 4;  // weights, gradients, two moments
    REIN_RETURN_IF_ERROR(tensor::CheckHostMemory(
        "weights, gradients and optimizer state",
        kArenas * sizeof(float) * static_cast<uint64_t>(set->registry_.arena_elements())));
  }
  absl::Status status;
  REIN_RETURN_IF_ERROR(
      CatchTorch("trainer memory", [&] { status = set->Allocate(source, device, dtype); }));
  REIN_RETURN_IF_ERROR(status);
  return set;
}

absl::Status ParameterSet::Allocate(const ParameterSource& source, const std::string& device,
                                    const std::string& dtype) {
  const int64_t size = registry_.arena_elements();
  at::TensorOptions fp32 = at::TensorOptions().device(device).dtype(at::kFloat);
  const bool narrow = dtype == "bfloat16";
  compute_ = at::zeros({size}, narrow ? fp32.dtype(at::kBFloat16) : fp32);
  grad_ = at::zeros({size}, fp32);
  at::Tensor whole = narrow ? at::zeros({size}, fp32) : compute_;
  if (source.random) {
    models::InitializeWeights(model_.spec, registry_, source.seed, whole);
  } else {
    REIN_RETURN_IF_ERROR(models::LoadWeights(source.path, model_, registry_, whole));
  }
  if (narrow) compute_.copy_(whole);
  optimizer_.slice = registry_.OptimizerSlice(group_.rank(), group_.size());
  const int64_t begin = optimizer_.slice.begin, length = optimizer_.slice.end - begin;
  optimizer_.master = whole.narrow(0, begin, length);  // in fp32 a view of the compute arena
  if (narrow && length < size) optimizer_.master = optimizer_.master.clone();
  if (narrow) optimizer_.rounded = compute_.narrow(0, begin, length);
  optimizer_.moment1 = at::zeros({length}, fp32);
  optimizer_.moment2 = at::zeros({length}, fp32);
  REIN_ASSIGN_OR_RETURN(decoder_, models::Decoder::Create(model_.spec, registry_, compute_, grad_));
  return absl::OkStatus();
}

absl::StatusOr<double> ParameterSet::Step(const AdamWSettings& settings, double learning_rate,
                                          double max_grad_norm, int64_t step) {
  REIN_RETURN_IF_ERROR(group_.AllReduceSum(grad_));
  double norm = 0;
  at::NoGradGuard no_grad;
  REIN_RETURN_IF_ERROR(CatchTorch("gradient norm", [&] { norm = std::sqrt(SquaredNorm(grad_)); }));
  if (!std::isfinite(norm)) {
    for (const weights::Parameter& p : registry_.parameters()) {
      if (std::isfinite(SquaredNorm(grad_.narrow(0, p.offset, p.elements)))) continue;
      return absl::AbortedError(
          absl::StrCat("gradient is not finite (first: parameter ", p.spec.name, ")"));
    }
    return absl::AbortedError(absl::StrCat("gradient norm is not finite: ", norm));
  }
  const double scale = max_grad_norm > 0 ? std::min(1.0, max_grad_norm / (norm + 1e-6)) : 1;
  const auto [begin, end] = optimizer_.slice;
  std::vector<at::Tensor> parts;
  REIN_RETURN_IF_ERROR(CatchTorch("optimizer step", [&] {
    AdamWStep(registry_, settings, learning_rate, scale, step, grad_.narrow(0, begin, end - begin),
              optimizer_);
    for (int rank = 0; rank < group_.size(); ++rank) {
      weights::Registry::Slice slice = registry_.OptimizerSlice(rank, group_.size());
      parts.push_back(compute_.narrow(0, slice.begin, slice.end - slice.begin));
    }
    grad_.zero_();
  }));
  REIN_RETURN_IF_ERROR(group_.AllGather(parts[group_.rank()], parts));
  return norm;
}

ParameterSet::Snapshot ParameterSet::Copy() const {
  return {compute_.clone(), optimizer_.master.clone(), optimizer_.moment1.clone(),
          optimizer_.moment2.clone()};
}

void ParameterSet::Undo(const Snapshot& snapshot) {
  at::NoGradGuard no_grad;
  grad_.zero_();
  if (!snapshot.compute.defined()) return;
  compute_.copy_(snapshot.compute);
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
    at::Tensor gathered = at::zeros({registry_.arena_elements()}, part->options());
    std::vector<at::Tensor> parts;
    for (int rank = 0; rank < group_.size(); ++rank) {
      weights::Registry::Slice slice = registry_.OptimizerSlice(rank, group_.size());
      parts.push_back(gathered.narrow(0, slice.begin, slice.end - slice.begin));
    }
    REIN_RETURN_IF_ERROR(group_.AllGather(*part, parts));
    *whole = gathered.to(at::kCPU);
  }
  return arenas;
}

absl::Status ParameterSet::Restore(const Arenas& arenas) {
  return CatchTorch("restore", [&] {
    at::NoGradGuard no_grad;
    const auto [begin, end] = optimizer_.slice;
    compute_.copy_(arenas.master);
    optimizer_.master.copy_(arenas.master.narrow(0, begin, end - begin));
    optimizer_.moment1.copy_(arenas.moment1.narrow(0, begin, end - begin));
    optimizer_.moment2.copy_(arenas.moment2.narrow(0, begin, end - begin));
    grad_.zero_();
  });
}

}  // namespace rein::trainer

#include "common/models/arena.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include "absl/strings/str_cat.h"
#include "common/kernels/digest.h"
#include "common/status/status_macros.h"
#include "common/tensor/cuda_runtime.h"
#include "common/weights/digest.h"

namespace rein::models {

absl::StatusOr<std::string> ComputeDtype(const std::string& dtype, const std::string& device) {
  if (dtype.empty()) return std::string(device == "cpu" ? "float32" : "bfloat16");
  if (dtype == "float32" || (dtype == "bfloat16" && device != "cpu")) return dtype;
  return absl::InvalidArgumentError(
      absl::StrCat("model.dtype is '", dtype, "', want float32",
                   device == "cpu" ? " (a CPU computes in float32 only)" : " or bfloat16"));
}

namespace {

absl::StatusOr<std::vector<uint64_t>> DigestsOf(const std::vector<kernels::ByteRange>& ranges, const at::Tensor& arena) {
  std::vector<uint64_t> digests(ranges.size());
  const auto* bytes = static_cast<const char*>(arena.const_data_ptr());
  if (arena.is_cuda()) {
    REIN_RETURN_IF_ERROR(kernels::DigestRanges(bytes, ranges, tensor::CurrentStream(), &digests));
    return digests;
  }
  at::parallel_for(0, static_cast<int64_t>(ranges.size()), 1, [&](int64_t from, int64_t to) {
    for (int64_t i = from; i < to; ++i) {
      digests[static_cast<size_t>(i)] = weights::Digest(bytes + ranges[static_cast<size_t>(i)].offset, ranges[static_cast<size_t>(i)].size);
    }
  });
  return digests;
}

// Of the parameters of one part, which begins at element `begin` of the arena.
absl::StatusOr<std::vector<uint64_t>> DigestsOf(const std::vector<const weights::Parameter*>& parameters, int64_t begin,
                                                const at::Tensor& arena) {
  const auto width = static_cast<uint64_t>(arena.element_size());
  std::vector<kernels::ByteRange> ranges;
  for (const weights::Parameter* p : parameters) {
    ranges.push_back({static_cast<uint64_t>(p->offset - begin) * width, static_cast<uint64_t>(p->elements) * width});
  }
  return DigestsOf(ranges, arena);
}

std::vector<const weights::Parameter*> InPart(const weights::Registry& registry, bool trained) {
  std::vector<const weights::Parameter*> parameters;
  for (const weights::Parameter& p : registry.parameters()) {
    if (p.spec.quantisation == weights::Quantisation::kNone && registry.InTrainedPart(p) == trained) parameters.push_back(&p);
  }
  return parameters;
}

}  // namespace

QuantisedParts NewQuantised(const weights::Registry& registry, at::Device device) {
  if (registry.quantised_elements() == 0) return {};
  const int64_t bytes = weights::CodeBytes(registry.quantisation(), registry.quantised_elements());
  const at::TensorOptions on = at::TensorOptions().device(device);
  return {at::zeros({bytes}, on.dtype(at::kByte)), at::zeros({registry.quantised_scales()}, on.dtype(at::kFloat))};
}

nn::QuantisedMatrix ArenaParts::MatrixOf(const weights::Registry& registry, const weights::Parameter& parameter) const {
  const weights::Quantisation format = registry.quantisation();
  const int64_t scales = weights::ScaleCount(format, parameter.local_shape[0], parameter.elements);
  return {format,
          quantised.code.narrow(0, weights::CodeBytes(format, parameter.offset), weights::CodeBytes(format, parameter.elements)),
          quantised.scale.narrow(0, parameter.scale, scales), parameter.local_shape, trained.scalar_type()};
}

at::Tensor ArenaParts::Of(const weights::Registry& registry, const weights::Parameter& parameter) const {
  return registry.InTrainedPart(parameter)
             ? trained.narrow(0, parameter.offset - registry.trained_begin(), parameter.elements)
             : frozen.narrow(0, parameter.offset, parameter.elements);
}

ArenaParts PartsOf(const weights::Registry& registry, const at::Tensor& arena) {
  return {arena.narrow(0, 0, registry.trained_begin()),
          arena.narrow(0, registry.trained_begin(), registry.trained_elements())};
}

absl::StatusOr<std::vector<uint64_t>> ArenaDigests(const weights::Registry& registry,
                                                   const at::Tensor& trained) {
  return DigestsOf(InPart(registry, true), registry.trained_begin(), trained);
}

absl::StatusOr<uint64_t> FrozenDigest(const weights::Registry& registry, const ArenaParts& parts) {
  if (registry.trains_all()) return 0;
  REIN_ASSIGN_OR_RETURN(std::vector<uint64_t> digests, DigestsOf(InPart(registry, false), 0, parts.frozen));
  for (const at::Tensor& part : {parts.quantised.code, parts.quantised.scale}) {
    if (!part.defined()) continue;
    REIN_ASSIGN_OR_RETURN(std::vector<uint64_t> digest, DigestsOf({{0, part.nbytes()}}, part));
    digests.push_back(digest[0]);
  }
  return weights::CombineDigests(digests);
}

}  // namespace rein::models

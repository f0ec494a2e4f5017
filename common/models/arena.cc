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

// Of the parameters of one part, which begins at element `begin` of the arena.
absl::StatusOr<std::vector<uint64_t>> DigestsOf(const std::vector<const weights::Parameter*>& parameters, int64_t begin,
                                                const at::Tensor& arena) {
  const auto width = static_cast<uint64_t>(arena.element_size());
  std::vector<kernels::ByteRange> ranges;
  for (const weights::Parameter* p : parameters) {
    ranges.push_back({static_cast<uint64_t>(p->offset - begin) * width, static_cast<uint64_t>(p->elements) * width});
  }
  std::vector<uint64_t> digests(parameters.size());
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

std::vector<const weights::Parameter*> InPart(const weights::Registry& registry, bool trained) {
  std::vector<const weights::Parameter*> parameters;
  for (const weights::Parameter& p : registry.parameters()) {
    if (registry.InTrainedPart(p) == trained) parameters.push_back(&p);
  }
  return parameters;
}

}  // namespace

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

absl::StatusOr<uint64_t> FrozenDigest(const weights::Registry& registry, const at::Tensor& frozen) {
  const auto parameters = InPart(registry, false);
  if (parameters.empty()) return 0;
  REIN_ASSIGN_OR_RETURN(std::vector<uint64_t> digests, DigestsOf(parameters, 0, frozen));
  return weights::CombineDigests(digests);
}

}  // namespace rein::models

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

absl::StatusOr<std::vector<uint64_t>> ArenaDigests(const weights::Registry& registry,
                                                   const at::Tensor& arena) {
  const auto& parameters = registry.parameters();
  const auto width = static_cast<uint64_t>(arena.element_size());
  std::vector<kernels::ByteRange> ranges;
  for (const weights::Parameter& p : parameters) {
    ranges.push_back({static_cast<uint64_t>(p.offset) * width, static_cast<uint64_t>(p.elements) * width});
  }
  std::vector<uint64_t> digests(parameters.size());
  const auto* bytes = static_cast<const char*>(arena.const_data_ptr());
  if (arena.is_cuda()) {
    REIN_RETURN_IF_ERROR(kernels::DigestRanges(bytes, ranges, tensor::CurrentStream(), &digests));
    return digests;
  }
  at::parallel_for(0, static_cast<int64_t>(ranges.size()), 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      digests[i] = weights::Digest(bytes + ranges[i].offset, ranges[i].size);
    }
  });
  return digests;
}

}  // namespace rein::models

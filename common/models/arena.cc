#include "common/models/arena.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include "absl/strings/str_cat.h"
#include "common/weights/digest.h"

namespace rein::models {

absl::StatusOr<std::string> ComputeDtype(const std::string& dtype, const std::string& device) {
  if (dtype.empty()) return std::string(device == "cpu" ? "float32" : "bfloat16");
  if (dtype == "float32" || (dtype == "bfloat16" && device != "cpu")) return dtype;
  return absl::InvalidArgumentError(
      absl::StrCat("model.dtype is '", dtype, "', want float32",
                   device == "cpu" ? " (a CPU computes in float32 only)" : " or bfloat16"));
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

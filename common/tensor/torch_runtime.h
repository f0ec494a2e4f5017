// Starts LibTorch in a service: threads and device; and says which LibTorch it is.

#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "common/version/build_version.h"

namespace rein::tensor {

version::LinkedVersions TorchVersions();

// `device` is cpu, gpu:N or cuda:N; returns cpu or cuda:N. `threads` 0: as many as there are cores.
// INVALID_ARGUMENT for another text; UNAVAILABLE when this build has no CUDA or the host no such GPU.
absl::StatusOr<std::string> StartTorch(const std::string& device, int threads);

}  // namespace rein::tensor

#include "common/tensor/torch_runtime.h"

#include <ATen/Parallel.h>
#include <torch/version.h>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "common/tensor/cuda_runtime.h"

namespace rein::tensor {

version::LinkedVersions TorchVersions() {
  return {TORCH_VERSION, CudaVersion(), NcclVersion()};
}

absl::StatusOr<std::string> StartTorch(const std::string& device, int threads) {
  if (threads > 0) at::set_num_threads(threads);
  if (device == "cpu") return std::string("cpu");
  absl::string_view index = device;
  int ordinal = 0;
  if ((!absl::ConsumePrefix(&index, "gpu:") && !absl::ConsumePrefix(&index, "cuda:")) ||
      !absl::SimpleAtoi(index, &ordinal) || ordinal < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("--device is '", device, "', want cpu or gpu:N"));
  }
  const int count = CudaDeviceCount();
  if (ordinal >= count) {
    return absl::UnavailableError(
        CudaVersion().empty()
            ? absl::StrCat("--device ", device, ": this is the CPU build; build the cuda preset")
            : absl::StrCat("--device ", device, ": this host shows ", count, " GPU(s)"));
  }
  UseCudaDevice(ordinal);
  return absl::StrCat("cuda:", ordinal);
}

}  // namespace rein::tensor

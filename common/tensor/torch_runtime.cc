#include "common/tensor/torch_runtime.h"

#include <ATen/Parallel.h>
#include <torch/version.h>

#include <cstdlib>
#include <filesystem>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "common/tensor/cuda_runtime.h"

namespace rein::tensor {

namespace {

// What CUDA_VISIBLE_DEVICES should be for one of those that it names now; empty: it names fewer.
std::string NthVisibleGpu(int ordinal) {
  const char* visible = std::getenv("CUDA_VISIBLE_DEVICES");
  if (visible == nullptr) return absl::StrCat(ordinal);
  std::vector<std::string> names = absl::StrSplit(visible, ',', absl::SkipWhitespace());
  return ordinal < static_cast<int>(names.size()) ? names[static_cast<size_t>(ordinal)] : "";
}

// Why CUDA finds no such GPU, as far as it can be seen from outside, and what to do.
std::string WhyNoGpu(const std::string& visible) {
  if (!std::filesystem::exists("/proc/driver/nvidia/version")) {
    return "and no NVIDIA driver (/proc/driver/nvidia/version is not there): load one, or give --device cpu";
  }
  if (visible.empty()) return "though a driver is loaded: CUDA_VISIBLE_DEVICES names fewer";
  return "though a driver is loaded: nvidia-smi -L lists its GPUs and nvidia-smi the CUDA it is for, which must not be older than this build's";
}

}  // namespace

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
  if (CudaVersion().empty()) {
    return absl::UnavailableError(
        absl::StrCat("--device ", device, ": this is the CPU build; build the cuda preset"));
  }
  // The process sees this GPU alone: the current device of CUDA belongs to a thread, and calls are
  // served by many.
  const std::string visible = NthVisibleGpu(ordinal);
  setenv("CUDA_VISIBLE_DEVICES", visible.c_str(), /*overwrite=*/1);
  if (visible.empty() || CudaDeviceCount() == 0) {
    return absl::UnavailableError(absl::StrCat("--device ", device, ": this host shows no such GPU, ", WhyNoGpu(visible)));
  }
  return std::string("cuda:0");
}

}  // namespace rein::tensor

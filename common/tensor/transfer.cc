#include "common/tensor/transfer.h"

#include <ATen/ATen.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <utility>

namespace rein::tensor {

at::Tensor ToDevice(const at::Tensor& host, at::Device device) {
  return device.is_cuda() ? host.pin_memory().to(device, /*non_blocking=*/true) : host.to(device);
}

ToHost::ToHost(std::vector<at::Tensor> from) : host_(std::move(from)) {
  std::optional<at::Device> device;
  for (at::Tensor& x : host_) {
    if (!x.defined()) continue;
    if (!x.is_cpu()) device = x.device();
    x = x.detach().to(at::kCPU, /*non_blocking=*/true);
  }
  if (!device) return;
  copied_.emplace(device->type());
  copied_->record(c10::impl::VirtualGuardImpl(device->type()).getStream(*device));
}

const std::vector<at::Tensor>& ToHost::Wait() {
  if (copied_) copied_->synchronize();
  return host_;
}

}  // namespace rein::tensor

// Numbers on their way between host and device, which nobody waits for before they are needed: through pinned memory, which a GPU
// copies when its stream comes to it. With pageable memory the host would wait until all work before is done.

#pragma once

#include <optional>
#include <vector>

#include <ATen/core/Tensor.h>
#include <c10/core/Event.h>

namespace rein::tensor {

// A copy of `host` on `device`.
at::Tensor ToDevice(const at::Tensor& host, at::Device device);

// Copies of tensors of one device, those not defined left out.
class ToHost {
 public:
  explicit ToHost(std::vector<at::Tensor> from);
  // When they are there; in the order given.
  const std::vector<at::Tensor>& Wait();

 private:
  std::vector<at::Tensor> host_;
  std::optional<c10::Event> copied_;
};

}  // namespace rein::tensor

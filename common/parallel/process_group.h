// ProcessGroup is the ranks of one data-parallel trainer: process = rank. Collectives block; every rank
// must call the same ones in the same order.
//
//   std::unique_ptr<ProcessGroup> group = SingleProcess();
//   REIN_RETURN_IF_ERROR(group->AllReduceSum(grad));
//
// Errors (a lost peer, a timeout) are UNAVAILABLE; the group is unusable afterwards.

#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <vector>

#include "absl/status/status.h"

namespace rein::parallel {

class ProcessGroup {
 public:
  virtual ~ProcessGroup() = default;

  virtual int rank() const = 0;
  virtual int size() const = 0;

  // In place; contiguous tensors.
  virtual absl::Status AllReduceSum(at::Tensor tensor) = 0;
  virtual absl::Status Broadcast(at::Tensor tensor, int root) = 0;
  // parts[r] receives rank r's `own`; all parts have the size of rank r's own slice, which may differ.
  virtual absl::Status AllGather(const at::Tensor& own, const std::vector<at::Tensor>& parts) = 0;
};

// One rank: every collective is the identity.
std::unique_ptr<ProcessGroup> SingleProcess();

}  // namespace rein::parallel

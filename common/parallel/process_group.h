// ProcessGroup is the ranks of one data-parallel trainer: process = rank. Collectives block; every
// rank must call the same ones in the same order.
//
//   auto listener = *RankListener::Create("127.0.0.1");              // rank 0; tells the others
//   REIN_ASSIGN_OR_RETURN(auto group, JoinGroup({.rank = 0, .size = 2, .listener = &*listener}, "cpu"));
//   REIN_RETURN_IF_ERROR(group->AllReduceSum(grad));
//
// Every rank gets the same bits of a sum. An error (a lost peer, a timeout) is UNAVAILABLE and
// IsFatal(): the group is of no more use, and neither is what the ranks held in common. One thread at
// a time.

#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/parallel/rank_listener.h"

namespace rein::parallel {

class ProcessGroup {
 public:
  virtual ~ProcessGroup() = default;

  virtual int rank() const = 0;
  virtual int size() const = 0;

  // In place; a contiguous tensor (fp32 or fp64) in host memory, or on the group's device.
  virtual absl::Status AllReduceSum(at::Tensor tensor) = 0;
  virtual absl::Status Broadcast(at::Tensor tensor, int root) = 0;
  // parts[r] receives rank r's `own`; slices may differ in size.
  virtual absl::Status AllGather(const at::Tensor& own, const std::vector<at::Tensor>& parts) = 0;
};

// One rank: every collective is the identity, on any device.
std::unique_ptr<ProcessGroup> SingleProcess();

// How a rank finds the others.
struct GroupPlace {
  int rank = 0;
  int size = 1;
  RankListener* listener = nullptr;           // rank 0: where the others come
  std::string address;                        // the others: host:port of that listener
  absl::Duration timeout = absl::Minutes(5);  // for joining, and for each collective
  // Rank 0, may be empty: asked again and again while waiting; an error ends the waiting.
  std::function<absl::Status()> others;
};

// Ranks that compute on `device`, cpu or cuda:N: over TCP, and on GPUs also by NCCL. Blocks until all
// have come; UNAVAILABLE (not fatal) names who did not.
absl::StatusOr<std::unique_ptr<ProcessGroup>> JoinGroup(const GroupPlace& place,
                                                        const std::string& device);

}  // namespace rein::parallel

// ProcessGroup is the ranks of one data-parallel trainer: process = rank. Collectives block; every rank
// must call the same ones in the same order.
//
//   REIN_ASSIGN_OR_RETURN(auto group, JoinTcp({.host = "trainer-0", .port = 7100, .rank = 1, .size = 2}));
//   REIN_RETURN_IF_ERROR(group->AllReduceSum(grad));
//
// Sums are taken in rank order, so that every rank gets the same bits, run after run. Errors (a lost peer,
// a timeout) are UNAVAILABLE; the group is unusable afterwards. One thread at a time.

#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace rein::parallel {

class ProcessGroup {
 public:
  virtual ~ProcessGroup() = default;

  virtual int rank() const = 0;
  virtual int size() const = 0;

  // In place; a contiguous tensor in host memory (fp32 or fp64).
  virtual absl::Status AllReduceSum(at::Tensor tensor) = 0;
  virtual absl::Status Broadcast(at::Tensor tensor, int root) = 0;
  // parts[r] receives rank r's `own`; slices may differ in size.
  virtual absl::Status AllGather(const at::Tensor& own, const std::vector<at::Tensor>& parts) = 0;
};

// One rank: every collective is the identity, on any device.
std::unique_ptr<ProcessGroup> SingleProcess();

// Where the ranks of a group meet.
struct Rendezvous {
  std::string host = "127.0.0.1";  // of rank 0
  int port = 0;                    // where rank 0 listens
  int rank = 0;
  int size = 1;
  absl::Duration timeout = absl::Minutes(5);  // for joining, and for each message
};

// Ranks over TCP, in a star around rank 0: right for CPUs and for tests, not built for speed. (LibTorch's
// wheel carries Gloo without its headers.) Blocks until all have come; UNAVAILABLE names address and rank.
absl::StatusOr<std::unique_ptr<ProcessGroup>> JoinTcp(const Rendezvous& rendezvous);

}  // namespace rein::parallel

// TcpGroup is ranks over TCP, in a star around rank 0, for tensors in host memory: right for CPUs and for
// small things beside NCCL, not built for speed. (LibTorch's wheel carries Gloo without its headers.) Sums
// are taken in rank order, so that they are the same run after run.

#pragma once

#include <memory>
#include <utility>
#include <vector>

#include "common/parallel/peer_socket.h"
#include "common/parallel/process_group.h"

namespace rein::parallel {

class TcpGroup final : public ProcessGroup {
 public:
  static absl::StatusOr<std::unique_ptr<TcpGroup>> Join(const GroupPlace& place);

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  absl::Status AllReduceSum(at::Tensor tensor) override;
  absl::Status Broadcast(at::Tensor tensor, int root) override;
  absl::Status AllGather(const at::Tensor& own, const std::vector<at::Tensor>& parts) override;

  // UNAVAILABLE when a rank that this one is connected to has hung up; never waits.
  absl::Status CheckPeers() const;

 private:
  // At rank 0 peers[r] is rank r (peers[0] unused); elsewhere peers[0] is rank 0.
  TcpGroup(int rank, int size, std::vector<PeerSocket> peers)
      : rank_(rank), size_(size), peers_(std::move(peers)) {}

  absl::Status ReduceChunk(at::Tensor chunk, const at::Tensor& incoming) const;
  absl::Status Spread(const at::Tensor& tensor, int root) const;

  const int rank_, size_;
  const std::vector<PeerSocket> peers_;
};

}  // namespace rein::parallel

// Ranks on GPUs: NCCL for tensors on the device, and a star over TCP for the small ones in host memory,
// for the NCCL id, and to notice at once when a process is gone.

#include <ATen/ATen.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/nccl/nccl_comm.h"
#include "common/parallel/process_group.h"
#include "common/parallel/tcp_group.h"
#include "common/status/fatal.h"
#include "common/status/status_macros.h"
#include "common/tensor/cuda_runtime.h"

namespace rein::parallel {
namespace {

// Whatever went wrong, the group is lost and another may do the work.
absl::Status Lost(const absl::Status& status) {
  if (status.ok() || absl::IsInvalidArgument(status)) return status;
  return Fatal(absl::UnavailableError(absl::StrCat("process group: ", status.message())));
}

class NcclGroup final : public ProcessGroup {
 public:
  NcclGroup(std::unique_ptr<TcpGroup> star, absl::Duration timeout)
      : star_(std::move(star)), timeout_(timeout) {}

  absl::Status Join(int device) {
    nccl::NcclPlace place{.rank = rank(), .size = size(), .device = device};
    place.alive = [this] { return star_->CheckPeers(); };
    if (rank() == 0) {
      REIN_ASSIGN_OR_RETURN(place.id, nccl::NcclComm::NewId());
    }
    REIN_RETURN_IF_ERROR(ShareId(&place.id));
    REIN_ASSIGN_OR_RETURN(comm_, nccl::NcclComm::Join(place, absl::Now() + timeout_));
    return absl::OkStatus();
  }

  int rank() const override { return star_->rank(); }
  int size() const override { return star_->size(); }

  absl::Status AllReduceSum(at::Tensor tensor) override {
    if (tensor.is_cpu()) return star_->AllReduceSum(tensor);
    REIN_RETURN_IF_ERROR(Check(tensor));
    if (tensor.scalar_type() != at::kFloat && tensor.scalar_type() != at::kDouble) {
      return absl::InvalidArgumentError("process group: sums are of fp32 or fp64");
    }
    const auto type = tensor.scalar_type() == at::kFloat ? nccl::NcclType::kFloat32
                                                         : nccl::NcclType::kFloat64;
    return Lost(comm_->AllReduceSum(tensor.mutable_data_ptr(),
                                    static_cast<uint64_t>(tensor.numel()), type,
                                    tensor::CurrentStream(), absl::Now() + timeout_));
  }

  absl::Status Broadcast(at::Tensor tensor, int root) override {
    if (tensor.is_cpu()) return star_->Broadcast(tensor, root);
    REIN_RETURN_IF_ERROR(Check(tensor));
    if (tensor.numel() == 0) return absl::OkStatus();
    return Lost(comm_->Broadcast(tensor.mutable_data_ptr(), tensor.nbytes(), root,
                                 tensor::CurrentStream(), absl::Now() + timeout_));
  }

  absl::Status AllGather(const at::Tensor& own, const std::vector<at::Tensor>& parts) override {
    if (own.is_cpu()) return star_->AllGather(own, parts);
    if (!parts[rank()].is_same(own)) at::Tensor(parts[rank()]).copy_(own);
    for (int root = 0; root < size(); ++root) REIN_RETURN_IF_ERROR(Broadcast(parts[root], root));
    return absl::OkStatus();
  }

 private:
  static absl::Status Check(const at::Tensor& tensor) {
    if (tensor.is_contiguous()) return absl::OkStatus();
    return absl::InvalidArgumentError("process group: wants contiguous tensors");
  }

  // Rank 0's id reaches all.
  absl::Status ShareId(std::string* id) {
    const std::string own = *id;
    at::Tensor size = at::full({1}, static_cast<double>(own.size()), at::kDouble);
    REIN_RETURN_IF_ERROR(star_->Broadcast(size, 0));
    at::Tensor bytes = at::zeros({static_cast<int64_t>(size.item<double>())}, at::kByte);
    if (rank() == 0) std::copy(own.begin(), own.end(), bytes.mutable_data_ptr<uint8_t>());
    REIN_RETURN_IF_ERROR(star_->Broadcast(bytes, 0));
    const auto* begin = bytes.const_data_ptr<uint8_t>();
    id->assign(begin, begin + bytes.numel());
    return absl::OkStatus();
  }

  const std::unique_ptr<TcpGroup> star_;
  const absl::Duration timeout_;
  std::unique_ptr<nccl::NcclComm> comm_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<ProcessGroup>> JoinGroup(const GroupPlace& place,
                                                        const std::string& device) {
  REIN_ASSIGN_OR_RETURN(auto star, TcpGroup::Join(place));
  if (device == "cpu") return star;
  auto group = std::make_unique<NcclGroup>(std::move(star), place.timeout);
  absl::Status joined = group->Join(at::Device(device).index());
  if (!joined.ok()) {
    return absl::UnavailableError(absl::StrCat("rank ", place.rank, " of ", place.size,
                                               " cannot join its group by NCCL: ",
                                               joined.message()));
  }
  return group;
}

}  // namespace rein::parallel

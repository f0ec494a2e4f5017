// Stands in for nccl_comm.cc in a build without CUDA.

#include "common/nccl/nccl_comm.h"

namespace rein::nccl {
namespace {

absl::Status NotBuilt() { return absl::UnimplementedError("NCCL: this is the CPU build"); }

}  // namespace

absl::StatusOr<std::string> NcclComm::NewId() { return NotBuilt(); }

absl::StatusOr<std::unique_ptr<NcclComm>> NcclComm::Join(const NcclPlace&, absl::Time) {
  return NotBuilt();
}

}  // namespace rein::nccl

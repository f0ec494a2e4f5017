// Stands in for nccl_member.cc in a build without CUDA.

#include "common/weights/channel/nccl_member.h"

namespace rein::weights {
namespace {

absl::Status NotBuilt() {
  return absl::UnimplementedError("weights by NCCL: this is the CPU build, use the gRPC transport");
}

}  // namespace

absl::StatusOr<std::string> NcclMember::NewId() { return NotBuilt(); }

absl::StatusOr<std::unique_ptr<NcclMember>> NcclMember::Join(const NcclPlace&, absl::Time) {
  return NotBuilt();
}

}  // namespace rein::weights

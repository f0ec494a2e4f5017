// Stands in for nccl_group.cc in a build without CUDA.

#include "common/parallel/process_group.h"
#include "common/parallel/tcp_group.h"

namespace rein::parallel {

absl::StatusOr<std::unique_ptr<ProcessGroup>> JoinGroup(const GroupPlace& place,
                                                        const std::string& device) {
  if (device == "cpu") return TcpGroup::Join(place);
  return absl::UnimplementedError("several ranks on " + device +
                                  ": this is the CPU build, which has no NCCL");
}

}  // namespace rein::parallel

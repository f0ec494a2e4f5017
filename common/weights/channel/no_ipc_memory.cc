#include "common/weights/channel/ipc_memory.h"

namespace rein::weights {

absl::StatusOr<IpcMemory> ShareMemory(void*, int) {
  return absl::UnimplementedError("weights by CUDA IPC: this is the CPU build");
}
absl::Status CopyFromShared(const IpcMemory&, void*, uint64_t, int) {
  return absl::UnimplementedError("weights by CUDA IPC: this is the CPU build");
}

}  // namespace rein::weights

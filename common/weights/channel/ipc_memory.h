// Device memory of one process that others on the same GPU map (CUDA IPC).

#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace rein::weights {

struct IpcMemory {
  std::string handle;   // cudaIpcMemHandle_t of the allocation
  uint64_t offset = 0;  // where the memory begins in it
};

// UNIMPLEMENTED where memory cannot be shared: a build without CUDA, an allocator that maps it piece by piece.
absl::StatusOr<IpcMemory> ShareMemory(void* memory, int device);

// Maps `from`, copies its first `bytes` to `to` on `device` and unmaps it. UNIMPLEMENTED when it cannot be mapped: another
// GPU, or a container that does not share its namespace.
absl::Status CopyFromShared(const IpcMemory& from, void* to, uint64_t bytes, int device);

}  // namespace rein::weights

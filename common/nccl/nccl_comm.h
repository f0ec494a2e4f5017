// NcclComm is one rank of an NCCL communicator, in which every wait has a deadline.
//
//   REIN_ASSIGN_OR_RETURN(std::string id, NcclComm::NewId());                        // rank 0
//   REIN_ASSIGN_OR_RETURN(auto comm, NcclComm::Join({id, rank, size, device}, deadline));
//   REIN_RETURN_IF_ERROR(comm->Broadcast(arena, bytes, /*root=*/0, nullptr, deadline));
//
// The communicator is non-blocking; a deadline that is missed (DEADLINE_EXCEEDED) or an error of
// `alive` aborts it, and it is of no more use. Collectives by one thread; Abort() from any. In a build
// without NCCL everything is UNIMPLEMENTED.

#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace rein::nccl {

struct NcclPlace {
  std::string id;  // of the communicator: NewId() of rank 0
  int rank = 0;
  int size = 1;
  int device = 0;  // CUDA ordinal
  // Asked again and again while waiting; an error ends the waiting. May be empty.
  std::function<absl::Status()> alive = nullptr;
};

enum class NcclType { kFloat32, kFloat64 };

class NcclComm {
 public:
  virtual ~NcclComm() = default;

  static absl::StatusOr<std::string> NewId();
  static absl::StatusOr<std::unique_ptr<NcclComm>> Join(const NcclPlace& place,
                                                        absl::Time deadline);

  // A cudaStream_t of the communicator's own, ordered after nothing else.
  virtual void* own_stream() const = 0;

  // Pointers are device memory. The work is ordered after what is in `stream` (a cudaStream_t; null is
  // CUDA's default stream), and done when the call returns.
  virtual absl::Status Broadcast(void* data, uint64_t bytes, int root, void* stream,
                                 absl::Time deadline) = 0;
  // In place.
  virtual absl::Status AllReduceSum(void* data, uint64_t count, NcclType type, void* stream,
                                    absl::Time deadline) = 0;
  virtual void Abort() = 0;
};

}  // namespace rein::nccl

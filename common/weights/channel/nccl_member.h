// NcclMember is one rank of a communicator that carries weights: rank 0 sends, the others receive.
//
//   REIN_ASSIGN_OR_RETURN(std::string id, NcclMember::NewId());                       // rank 0
//   REIN_ASSIGN_OR_RETURN(auto member, NcclMember::Join({id, rank, size, device}, deadline));
//   REIN_RETURN_IF_ERROR(member->Broadcast(arena, bytes, deadline));
//
// The communicator is non-blocking and has a stream of its own, so every wait has a deadline; one that is
// missed aborts the communicator (DEADLINE_EXCEEDED), and the member is of no more use. Broadcast by one
// thread; Abort() from any. In a build without NCCL everything is UNIMPLEMENTED.

#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace rein::weights {

inline constexpr uint64_t kBucketBytes = 256 << 20;  // one ncclBroadcast

struct NcclPlace {
  std::string id;  // of the communicator: NewId() of rank 0
  int rank = 0;
  int size = 1;
  int device = 0;  // CUDA ordinal
};

class NcclMember {
 public:
  virtual ~NcclMember() = default;

  static absl::StatusOr<std::string> NewId();
  static absl::StatusOr<std::unique_ptr<NcclMember>> Join(const NcclPlace& place,
                                                          absl::Time deadline);

  // `arena` is device memory: source at rank 0, target elsewhere. Returns when the bytes are there.
  virtual absl::Status Broadcast(void* arena, uint64_t bytes, absl::Time deadline) = 0;
  virtual void Abort() = 0;
};

}  // namespace rein::weights

// Fatal marks an error after which the process that got it cannot go on: its GPU is in an error state, or
// a rank of its group is gone. A service answers with the error, then ends, so that its supervisor starts
// a new process.
//
//   return Fatal(absl::UnavailableError("CUDA error: an illegal memory access was encountered"));
//   ...
//   if (IsFatal(status)) process.GiveUp(status);
//
// The mark stays within the process: it does not travel with an RPC.

#pragma once

#include "absl/status/status.h"

namespace rein {

// OK stays OK. Code and message are kept.
absl::Status Fatal(absl::Status status);

bool IsFatal(const absl::Status& status);

}  // namespace rein

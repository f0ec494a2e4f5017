// Who may call which RPC, as the protos say (option (access) of each method): deny by default.

#pragma once

#include <string>

#include "absl/status/status.h"

#include "common/access/caller.h"

namespace rein::access {

// `path` as gRPC writes it: "/rein.v1.ControllerService/Submit". PERMISSION_DENIED names what the
// caller is and what the method wants; UNAUTHENTICATED for an unknown caller. grpc.health.v1 is open to
// all; a method without the option, or that does not exist, to nobody.
absl::Status CheckAccess(const std::string& path, const Caller& caller);

// PERMISSION_DENIED or UNAUTHENTICATED unless the caller is a user of at least this role, or local.
absl::Status CheckUser(UserRole least, const Caller& caller);

}  // namespace rein::access

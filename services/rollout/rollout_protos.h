// Between the protocol's messages and the engine's plain structs.

#pragma once

#include "absl/status/statusor.h"

#include "rein/v1/rollout.pb.h"
#include "rollout/engine/request.h"

namespace rein::services {

// INVALID_ARGUMENT names every sampling field that is out of range.
absl::StatusOr<rollout::GenerateSpec> FromProto(const v1::GenerateRequest& request);

rollout::GroupId FromProto(const v1::GroupId& group);

// `group` is the request's.
v1::GenerateReply ToProto(const v1::GroupId& group, const rollout::FinishedSibling& sibling);

}  // namespace rein::services

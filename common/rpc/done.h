// How the answer of an asynchronous call comes back.

#pragma once

#include <functional>

#include "absl/status/statusor.h"

namespace rein::rpc {

// Called exactly once, from any thread, never from inside the call that it belongs to.
template <typename Reply>
using Done = std::function<void(absl::StatusOr<Reply>)>;

}  // namespace rein::rpc

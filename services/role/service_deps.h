// ServiceDeps is what a service needs of its process; RoleProcess::deps() has it.

#pragma once

#include <functional>

#include "absl/status/status.h"

#include "common/rpc/fence_guard.h"
#include "common/rpc/reply_cache.h"
#include "common/status/fatal.h"
#include "common/sync/clock.h"
#include "common/telemetry/log.h"
#include "common/telemetry/metrics.h"

namespace rein::services {

// All must outlive the service.
struct ServiceDeps {
  rpc::FenceGuard& fence;
  rpc::ReplyCache& replies;
  const sync::Clock& clock;
  telemetry::Metrics& metrics;
  telemetry::Log& log;
  // The process cannot go on (IsFatal()): it answers the calls under way, and ends. Any thread.
  std::function<void(const absl::Status&)> give_up;

  void GiveUpIfFatal(const absl::Status& status) const {
    if (IsFatal(status)) give_up(status);
  }
};

}  // namespace rein::services

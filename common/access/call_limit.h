// CallLimit keeps one tenant's calls from crowding out the others': beyond a rate they are refused before their method runs.
//
//   REIN_RETURN_IF_ERROR(limit.Take(caller));
//
// Services and callers of this machine are not counted. Thread-safe.

#pragma once

#include <map>
#include <mutex>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"

#include "common/access/caller.h"
#include "common/sync/clock.h"

namespace rein::access {

struct CallRate {
  double per_second = 200;  // of a tenant, over all of its users and connections
  double at_once = 400;     // saved up while it calls less
};

class CallLimit {
 public:
  // `clock` must outlive it.
  explicit CallLimit(const sync::Clock& clock, CallRate rate = {}) : clock_(clock), rate_(rate) {}

  // RESOURCE_EXHAUSTED says whose calls are too many; again a moment later is right.
  absl::Status Take(const Caller& caller);

 private:
  struct Tenant {
    double left;
    absl::Time at;
  };

  const sync::Clock& clock_;
  const CallRate rate_;
  std::mutex mutex_;
  std::map<std::string, Tenant> tenants_;  // as many as have certificates or tokens
};

}  // namespace rein::access

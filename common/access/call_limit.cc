#include "common/access/call_limit.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace rein::access {

absl::Status CallLimit::Take(const Caller& caller) {
  if (caller.user.empty()) return absl::OkStatus();
  const absl::Time now = clock_.Now();
  std::lock_guard<std::mutex> lock(mutex_);
  Tenant& tenant = tenants_.try_emplace(caller.tenant, Tenant{rate_.at_once, now}).first->second;
  const double saved = std::max(0.0, absl::ToDoubleSeconds(now - tenant.at)) * rate_.per_second;
  tenant = {std::min(tenant.left + saved, rate_.at_once), now};
  if (tenant.left < 1) {
    return absl::ResourceExhaustedError(
        absl::StrCat("too many calls of tenant ", caller.tenant, ": at most ", rate_.per_second, " a second; try again in a moment"));
  }
  tenant.left -= 1;
  return absl::OkStatus();
}

}  // namespace rein::access

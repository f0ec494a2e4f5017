// AddressList is where one service may be found that runs in several processes of which one answers: the controllers
// of a deployment, one of which leads. The others answer every call with UNAVAILABLE (NOT_LEADER: ...).
//
//   AddressList addresses("10.0.0.1:7000,10.0.0.2:7000");
//   ... a call to addresses.current() ends with UNAVAILABLE ...
//   if (addresses.MayBeElsewhere(status)) addresses.Next();   // and connect anew

#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_split.h"

namespace rein::rpc {

class AddressList {
 public:
  // host:port, several with commas; at least one.
  explicit AddressList(const std::string& addresses) : addresses_(absl::StrSplit(addresses, ',')) {}

  const std::string& current() const { return addresses_[next_]; }
  const std::vector<std::string>& all() const { return addresses_; }
  bool several() const { return addresses_.size() > 1; }
  // Whether a call that ended so may succeed over a new connection: to the next address, or, where a balancer stands
  // before the controllers, to the same.
  bool MayBeElsewhere(const absl::Status& status) const {
    if (absl::StartsWith(status.message(), "NOT_LEADER")) return true;
    return several() && (absl::IsUnavailable(status) || absl::IsDeadlineExceeded(status));
  }
  // Goes round; true when it stands at the first again.
  bool Next() {
    next_ = (next_ + 1) % addresses_.size();
    return next_ == 0;
  }

 private:
  std::vector<std::string> addresses_;
  size_t next_ = 0;
};

}  // namespace rein::rpc

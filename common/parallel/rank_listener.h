// RankListener is where rank 0 of a group waits for the others: it listens at once, so that they can be
// told where before anybody waits.

#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"

namespace rein::parallel {

class RankListener {
 public:
  // `host` is what the others reach rank 0 by; 127.0.0.1: only this machine. UNAVAILABLE when no port can be
  // had.
  static absl::StatusOr<std::unique_ptr<RankListener>> Create(const std::string& host);
  ~RankListener();
  RankListener(const RankListener&) = delete;
  RankListener& operator=(const RankListener&) = delete;

  // host:port
  const std::string& address() const { return address_; }
  int descriptor() const { return descriptor_; }

 private:
  RankListener(int descriptor, std::string address)
      : descriptor_(descriptor), address_(std::move(address)) {}

  const int descriptor_;
  const std::string address_;
};

}  // namespace rein::parallel

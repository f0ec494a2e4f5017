// PeerSocket is a TCP connection between two ranks; every read and write has the group's timeout.

#pragma once

#include <cstdint>
#include <utility>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace rein::parallel {

class PeerSocket {
 public:
  PeerSocket() = default;
  // Owns `descriptor`.
  explicit PeerSocket(int descriptor) : descriptor_(descriptor) {}
  PeerSocket(PeerSocket&& other) noexcept : descriptor_(std::exchange(other.descriptor_, -1)) {}
  PeerSocket& operator=(PeerSocket&& other) noexcept {
    std::swap(descriptor_, other.descriptor_);
    return *this;
  }
  ~PeerSocket();

  int descriptor() const { return descriptor_; }
  void SetTimeout(absl::Duration timeout) const;

  // UNAVAILABLE when the peer is gone or silent for the timeout.
  absl::Status Send(const void* bytes, int64_t size) const;
  absl::Status Receive(void* bytes, int64_t size) const;
  // Whether the peer has hung up; never waits.
  bool IsClosed() const;

 private:
  int descriptor_ = -1;
};

}  // namespace rein::parallel

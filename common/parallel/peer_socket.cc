#include "common/parallel/peer_socket.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"

namespace rein::parallel {
namespace {

absl::Status Lost(const char* what) {
  return absl::UnavailableError(absl::StrCat("process group: ", what, ": ", std::strerror(errno)));
}

}  // namespace

PeerSocket::~PeerSocket() {
  if (descriptor_ >= 0) close(descriptor_);
}

void PeerSocket::SetTimeout(absl::Duration timeout) const {
  timeval value = absl::ToTimeval(timeout);
  setsockopt(descriptor_, SOL_SOCKET, SO_RCVTIMEO, &value, sizeof(value));
  setsockopt(descriptor_, SOL_SOCKET, SO_SNDTIMEO, &value, sizeof(value));
  int on = 1;
  setsockopt(descriptor_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
}

absl::Status PeerSocket::Send(const void* bytes, int64_t size) const {
  for (const auto* at = static_cast<const char*>(bytes); size > 0;) {
    ssize_t sent = send(descriptor_, at, static_cast<size_t>(size), MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent <= 0) return Lost("send");
    at += sent;
    size -= sent;
  }
  return absl::OkStatus();
}

absl::Status PeerSocket::Receive(void* bytes, int64_t size) const {
  for (auto* at = static_cast<char*>(bytes); size > 0;) {
    ssize_t got = recv(descriptor_, at, static_cast<size_t>(size), 0);
    if (got < 0 && errno == EINTR) continue;
    if (got == 0) return absl::UnavailableError("process group: a rank is gone");
    if (got < 0) return Lost("receive");
    at += got;
    size -= got;
  }
  return absl::OkStatus();
}

bool PeerSocket::IsClosed() const {
  char byte;
  ssize_t got = recv(descriptor_, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
  return got == 0 || (got < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR);
}

}  // namespace rein::parallel

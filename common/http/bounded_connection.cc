#include "common/http/bounded_connection.h"

#include <algorithm>

#include "absl/time/clock.h"
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <sys/socket.h>

namespace rein::http {
namespace {

constexpr size_t kBufferBytes = 16 << 10;

void AddressOf(int (*name)(int, sockaddr*, socklen_t*), int socket, std::string& ip, int& port) {
  sockaddr_storage address{};
  socklen_t size = sizeof(address);
  char text[INET6_ADDRSTRLEN] = "";
  if (name(socket, reinterpret_cast<sockaddr*>(&address), &size) != 0) return;
  if (address.ss_family == AF_INET) {
    const auto* four = reinterpret_cast<const sockaddr_in*>(&address);
    inet_ntop(AF_INET, &four->sin_addr, text, sizeof(text));
    port = ntohs(four->sin_port);
  } else if (address.ss_family == AF_INET6) {
    const auto* six = reinterpret_cast<const sockaddr_in6*>(&address);
    inet_ntop(AF_INET6, &six->sin6_addr, text, sizeof(text));
    port = ntohs(six->sin6_port);
  }
  ip = text;
}

}  // namespace

BoundedConnection::BoundedConnection(int socket, SSL* ssl, const RequestBounds& bounds)
    : socket_(socket), ssl_(ssl), bounds_(bounds), until_(absl::Now() + bounds.request) {
  fcntl(socket_, F_SETFL, fcntl(socket_, F_GETFL) | O_NONBLOCK);
}

bool BoundedConnection::Wait(short events, absl::Time until) const {
  pollfd one{.fd = socket_, .events = events, .revents = 0};
  const absl::Duration left = std::clamp(until - absl::Now(), absl::ZeroDuration(), absl::Hours(1));
  return poll(&one, 1, static_cast<int>(absl::ToInt64Milliseconds(absl::Ceil(left, absl::Milliseconds(1))))) > 0;
}

bool BoundedConnection::Accept() {
  while (true) {
    const int done = SSL_accept(ssl_);
    if (done == 1) return true;
    const int error = SSL_get_error(ssl_, done);
    if (error != SSL_ERROR_WANT_READ && error != SSL_ERROR_WANT_WRITE) return false;
    if (!Wait(error == SSL_ERROR_WANT_READ ? POLLIN : POLLOUT, until_)) return false;
  }
}

bool BoundedConnection::AwaitRequest() {
  if (next_ == buffer_.size() && Fill(absl::Now() + bounds_.idle) <= 0) return false;
  until_ = absl::Now() + bounds_.request;
  in_body_ = false;
  taken_ = 0;
  ends_ = 0;
  return true;
}

ssize_t BoundedConnection::Fill(absl::Time until) {
  buffer_.resize(kBufferBytes);
  next_ = 0;
  ssize_t got = -1;
  while (true) {
    short wanted = POLLIN;
    if (ssl_ != nullptr) {
      got = SSL_read(ssl_, buffer_.data(), static_cast<int>(buffer_.size()));
      if (got > 0) break;
      const int error = SSL_get_error(ssl_, static_cast<int>(got));
      got = error == SSL_ERROR_ZERO_RETURN ? 0 : -1;
      if (error != SSL_ERROR_WANT_READ && error != SSL_ERROR_WANT_WRITE) break;
      wanted = error == SSL_ERROR_WANT_READ ? POLLIN : POLLOUT;
    } else {
      got = recv(socket_, buffer_.data(), buffer_.size(), 0);
      if (got >= 0 || (errno != EAGAIN && errno != EINTR)) break;
    }
    if (!Wait(wanted, until)) break;
  }
  buffer_.resize(static_cast<size_t>(std::max<ssize_t>(got, 0)));
  return got;
}

size_t BoundedConnection::Left() const {
  const size_t most = in_body_ ? 2 * bounds_.body_bytes : bounds_.head_bytes;
  return most - std::min(most, taken_);
}

void BoundedConnection::Count(const char* bytes, size_t size) {
  for (size_t i = 0; i < size && !in_body_; ++i) {
    ++taken_;
    const char wanted = ends_ % 2 == 0 ? '\r' : '\n';
    ends_ = bytes[i] == wanted ? ends_ + 1 : bytes[i] == '\r' ? 1 : 0;
    if (ends_ < 4) continue;
    in_body_ = true;
    taken_ = size - i - 1;
    return;
  }
  if (in_body_) taken_ += size;
}

ssize_t BoundedConnection::read(char* bytes, size_t size) {
  if (Left() == 0 || absl::Now() > until_) return -1;
  if (next_ == buffer_.size()) {
    const ssize_t got = Fill(std::min(until_, absl::Now() + bounds_.piece));
    if (got <= 0) return got;
  }
  size = std::min({size, buffer_.size() - next_, Left()});
  std::copy_n(buffer_.data() + next_, size, bytes);
  next_ += size;
  Count(bytes, size);
  return static_cast<ssize_t>(size);
}

ssize_t BoundedConnection::write(const char* bytes, size_t size) {
  const absl::Time until = absl::Now() + bounds_.piece;
  while (true) {
    short wanted = POLLOUT;
    if (ssl_ != nullptr) {
      const int put = SSL_write(ssl_, bytes, static_cast<int>(std::min<size_t>(size, 1 << 20)));
      if (put > 0) return put;
      const int error = SSL_get_error(ssl_, put);
      if (error != SSL_ERROR_WANT_READ && error != SSL_ERROR_WANT_WRITE) return -1;
      wanted = error == SSL_ERROR_WANT_READ ? POLLIN : POLLOUT;
    } else {
      const ssize_t put = send(socket_, bytes, size, MSG_NOSIGNAL);
      if (put >= 0) return put;
      if (errno != EAGAIN && errno != EINTR) return -1;
    }
    if (!Wait(wanted, until)) return -1;
  }
}

bool BoundedConnection::is_readable() const {
  return next_ < buffer_.size() || (ssl_ != nullptr && SSL_pending(ssl_) > 0) || Wait(POLLIN, absl::Now() + bounds_.piece);
}

bool BoundedConnection::is_writable() const {
  if (!Wait(POLLOUT, absl::Now() + bounds_.piece)) return false;
  char byte;
  return recv(socket_, &byte, 1, MSG_PEEK | MSG_DONTWAIT) != 0;  // 0: the client has gone
}

void BoundedConnection::get_remote_ip_and_port(std::string& ip, int& port) const { AddressOf(&getpeername, socket_, ip, port); }

void BoundedConnection::get_local_ip_and_port(std::string& ip, int& port) const { AddressOf(&getsockname, socket_, ip, port); }

}  // namespace rein::http

#include "common/http/bounded_connection.h"

#include <algorithm>
#include <cerrno>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <openssl/err.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

namespace rein::http {
namespace {

constexpr size_t kPieceBytes = 16 << 10;
constexpr int kLingerPieces = 16;  // at a time: other connections want their turn
constexpr absl::Duration kLinger = absl::Seconds(2);
constexpr absl::string_view kContinue = "HTTP/1.1 100 Continue\r\n\r\n";

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

BoundedConnection::BoundedConnection(int socket, SSL_CTX* context, const RequestBounds& bounds)
    : socket_(socket),
      bounds_(bounds),
      ssl_(context == nullptr ? nullptr : SSL_new(context), &SSL_free),
      shaken_(context == nullptr),
      until_(absl::Now() + bounds.request),
      frame_(bounds) {
  fcntl(socket_, F_SETFL, fcntl(socket_, F_GETFL) | O_NONBLOCK);
  if (ssl_ == nullptr) return;
  SSL_set_fd(ssl_.get(), socket_);
  SSL_set_mode(ssl_.get(), SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_RELEASE_BUFFERS);
}

BoundedConnection::~BoundedConnection() {
  if (ssl_ != nullptr && shaken_ && !lingers_) {
    ERR_clear_error();
    SSL_shutdown(ssl_.get());
  }
  ERR_clear_error();
  ::shutdown(socket_, SHUT_RDWR);
  ::close(socket_);
}

BoundedConnection::Step BoundedConnection::Advance() {
  if (lingers_) return Linger();
  auto waits = [](const Moved& moved) { return moved.waits_for == POLLIN ? Step::kRead : Step::kWrite; };
  if (!shaken_) {
    if (ssl_ == nullptr) return Step::kEnd;  // no memory for it
    ERR_clear_error();
    const Moved moved = Outcome(SSL_accept(ssl_.get()));
    if (moved.waits_for != 0) return waits(moved);
    if (moved.bytes <= 0) return Step::kEnd;
    shaken_ = true;
    until_ = absl::Now() + bounds_.request;
  }
  while (true) {
    while (sent_ < out_.size()) {
      const Moved moved = Send(out_.data() + sent_, out_.size() - sent_);
      if (moved.waits_for != 0) return waits(moved);
      if (moved.bytes <= 0) return Step::kEnd;
      sent_ += static_cast<size_t>(moved.bytes);
      if (answering_) until_ = absl::Now() + bounds_.piece;
    }
    out_ = std::string();
    sent_ = 0;
    if (answering_) until_ = absl::Now() + bounds_.idle;
    answering_ = false;
    if (refused_) return Linger();
    if (last_) return Step::kEnd;
    frame_.Look(in_);
    if (frame_.whole() > 0) return Step::kWhole;
    if (frame_.refusal() != 0) {
      Refuse(frame_.refusal());
      continue;
    }
    if (frame_.expects_continue() && !said_continue_) {
      said_continue_ = true;
      out_ = std::string(kContinue);
      continue;
    }
    char piece[kPieceBytes];
    const Moved moved = Receive(piece, sizeof(piece));
    if (moved.waits_for != 0) return waits(moved);
    if (moved.bytes <= 0) return Step::kEnd;
    if (in_.empty()) until_ = absl::Now() + bounds_.request;
    in_.append(piece, static_cast<size_t>(moved.bytes));
  }
}

void BoundedConnection::Answered(bool last) {
  if (frame_.whole() == in_.size()) {
    in_ = std::string();  // gives its memory back too
  } else {
    in_.erase(0, frame_.whole());
  }
  next_ = 0;
  frame_ = RequestFrame(bounds_);
  said_continue_ = streams_ = false;
  answering_ = true;
  last_ = last;
  until_ = absl::Now() + bounds_.piece;
}

void BoundedConnection::Refuse(int status) {
  refused_ = true;
  out_ = absl::StrCat("HTTP/1.1 ", status, status == 413 ? " Payload Too Large" : status == 431 ? " Request Header Fields Too Large" : " Bad Request",
                      "\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
}

BoundedConnection::Step BoundedConnection::Linger() {
  if (!lingers_) {
    lingers_ = true;
    until_ = absl::Now() + kLinger;
    if (ssl_ != nullptr) {
      ERR_clear_error();
      SSL_shutdown(ssl_.get());
    }
    ::shutdown(socket_, SHUT_WR);
  }
  char piece[kPieceBytes];
  for (int i = 0; i < kLingerPieces; ++i) {
    const ssize_t got = recv(socket_, piece, sizeof(piece), 0);
    if (got < 0 && errno == EAGAIN) return Step::kRead;
    if (got <= 0 && errno != EINTR) return Step::kEnd;
  }
  return Step::kRead;
}

BoundedConnection::Moved BoundedConnection::Outcome(int result) const {
  if (result > 0) return {.bytes = result};
  switch (SSL_get_error(ssl_.get(), result)) {
    case SSL_ERROR_WANT_READ:
      return {.waits_for = POLLIN};
    case SSL_ERROR_WANT_WRITE:
      return {.waits_for = POLLOUT};
    default:
      return {};
  }
}

BoundedConnection::Moved BoundedConnection::Receive(char* bytes, size_t size) const {
  if (ssl_ != nullptr) {
    ERR_clear_error();
    return Outcome(SSL_read(ssl_.get(), bytes, static_cast<int>(size)));
  }
  ssize_t got = 0;
  do got = recv(socket_, bytes, size, 0);
  while (got < 0 && errno == EINTR);
  if (got < 0 && errno == EAGAIN) return {.waits_for = POLLIN};
  return {.bytes = std::max<ssize_t>(got, 0)};
}

BoundedConnection::Moved BoundedConnection::Send(const char* bytes, size_t size) const {
  if (ssl_ != nullptr) {
    ERR_clear_error();
    return Outcome(SSL_write(ssl_.get(), bytes, static_cast<int>(std::min<size_t>(size, 1 << 20))));
  }
  ssize_t put = 0;
  do put = send(socket_, bytes, size, MSG_NOSIGNAL);
  while (put < 0 && errno == EINTR);
  if (put < 0 && errno == EAGAIN) return {.waits_for = POLLOUT};
  return {.bytes = std::max<ssize_t>(put, 0)};
}

bool BoundedConnection::Wait(short events, absl::Time until) const {
  pollfd one{.fd = socket_, .events = events, .revents = 0};
  const absl::Duration left = std::clamp(until - absl::Now(), absl::ZeroDuration(), absl::Hours(1));
  return poll(&one, 1, static_cast<int>(absl::ToInt64Milliseconds(absl::Ceil(left, absl::Milliseconds(1))))) > 0;
}

bool BoundedConnection::Flush() const {
  while (sent_ < out_.size()) {
    const Moved moved = Send(out_.data() + sent_, out_.size() - sent_);
    if (moved.waits_for != 0 ? !Wait(moved.waits_for, absl::Now() + bounds_.piece) : moved.bytes <= 0) return false;
    sent_ += static_cast<size_t>(moved.bytes);
  }
  out_.clear();
  sent_ = 0;
  return true;
}

ssize_t BoundedConnection::read(char* bytes, size_t size) {
  size = std::min(size, frame_.whole() - next_);
  std::copy_n(in_.data() + next_, size, bytes);
  next_ += size;
  return static_cast<ssize_t>(size);
}

ssize_t BoundedConnection::write(const char* bytes, size_t size) {
  if (said_continue_ && absl::string_view(bytes, size) == kContinue) return static_cast<ssize_t>(size);  // not twice
  size_t put = 0;
  if (out_.empty()) {
    const Moved moved = Send(bytes, size);
    if (moved.waits_for == 0 && moved.bytes <= 0) return -1;
    put = static_cast<size_t>(moved.bytes);
  }
  out_.append(bytes + put, size - put);
  return streams_ && !Flush() ? -1 : static_cast<ssize_t>(size);
}

bool BoundedConnection::is_writable() const {
  streams_ = true;
  if (!Flush()) return false;
  char byte;
  return recv(socket_, &byte, 1, MSG_PEEK | MSG_DONTWAIT) != 0;  // 0: the client has gone
}

void BoundedConnection::get_remote_ip_and_port(std::string& ip, int& port) const { AddressOf(&getpeername, socket_, ip, port); }

void BoundedConnection::get_local_ip_and_port(std::string& ip, int& port) const { AddressOf(&getsockname, socket_, ip, port); }

}  // namespace rein::http

// BoundedConnection reads requests from an accepted connection, plain or TLS, for httplib: whatever a sender does, a
// request's head has at most so many bytes, its body twice what is allowed (chunks have sizes of their own), and all of
// it comes within a time. httplib bounds neither the number of headers nor bodies in chunks, and gives a sender its
// patience anew with each byte.
//
// Reads fail once a bound is passed, which ends the connection; what is written is bounded by a patience for each piece.
// Used by one thread at a time.

#pragma once

#include <cstddef>
#include <string>

#include "absl/time/time.h"
#include <httplib.h>

namespace rein::http {

struct RequestBounds {
  size_t head_bytes = 64 << 10;  // request line and headers
  size_t body_bytes = 1 << 20;
  absl::Duration request = absl::Seconds(10);  // from its first byte to its last
  absl::Duration idle = absl::Seconds(1);      // before a request: a kept connection must not hold up others
  absl::Duration piece = absl::Seconds(5);     // that is written, or waits for more
};

class BoundedConnection final : public httplib::Stream {
 public:
  // `ssl`, null for a plain connection, is the caller's, and so is `socket`; both must outlive this one.
  BoundedConnection(int socket, SSL* ssl, const RequestBounds& bounds);

  // The server's part of a TLS handshake, within the time of a request.
  bool Accept();
  // Waits for the first byte of a request, and counts from there; false: none came.
  bool AwaitRequest();

  bool is_readable() const override;
  bool is_writable() const override;
  ssize_t read(char* bytes, size_t size) override;
  ssize_t write(const char* bytes, size_t size) override;
  void get_remote_ip_and_port(std::string& ip, int& port) const override;
  void get_local_ip_and_port(std::string& ip, int& port) const override;
  int socket() const override { return socket_; }

 private:
  bool Wait(short events, absl::Time until) const;
  // Into the buffer, which is empty; as read().
  ssize_t Fill(absl::Time until);
  size_t Left() const;
  void Count(const char* bytes, size_t size);

  const int socket_;
  SSL* const ssl_;
  const RequestBounds bounds_;
  std::string buffer_;
  size_t next_ = 0;  // in the buffer
  absl::Time until_;
  bool in_body_ = false;
  size_t taken_ = 0;  // bytes of the head, then of the body
  int ends_ = 0;      // characters of "\r\n\r\n" that came last
};

}  // namespace rein::http

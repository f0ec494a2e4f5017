// BoundedConnection is an accepted connection, plain or TLS, that takes whole requests for httplib and gives it no more than
// these: whatever a sender does, a request's head and body have at most so many bytes, all of it comes within a time, and
// the thread that handles it finds it in memory. httplib bounds neither the number of headers nor bodies in chunks, gives a
// sender its patience anew with each byte, and waits on the thread that handles requests.
//
//   Advance(), until it says kWhole (on one thread, which never waits in it)
//   httplib reads and writes     (on another)
//   Answered(), and again
//
// Used by one thread at a time.

#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include <httplib.h>
#include <openssl/ssl.h>

#include "common/http/request_frame.h"

namespace rein::http {

class BoundedConnection final : public httplib::Stream {
 public:
  enum class Step { kRead, kWrite, kWhole, kEnd };

  // Owns the socket. `context`: null for a plain connection, else of the server's side.
  BoundedConnection(int socket, SSL_CTX* context, const RequestBounds& bounds);
  ~BoundedConnection() override;

  // Goes on as far as it can without waiting: shakes hands, sends what is left of an answer, takes a request. kRead and
  // kWrite: to be called again once the socket allows that, or given up at until(). kEnd: nothing more will come of it.
  Step Advance();
  absl::Time until() const { return until_; }
  // Bytes in memory.
  size_t held() const { return in_.capacity() + out_.capacity(); }
  SSL* ssl() const { return ssl_.get(); }

  // How many requests it has taken, with this one.
  size_t CountRequest() { return ++requests_; }
  // The request was answered; `last`: no other is taken, but all of the answer is still sent.
  void Answered(bool last);

  // Of a request that is whole; 0 at its end.
  ssize_t read(char* bytes, size_t size) override;
  // Never waits, but keeps what the client does not take yet; in a stream, waits for the client.
  ssize_t write(const char* bytes, size_t size) override;
  bool is_readable() const override { return next_ < frame_.whole(); }
  // httplib asks before each piece of a stream, and then only. Waits; false: the client has gone.
  bool is_writable() const override;
  void get_remote_ip_and_port(std::string& ip, int& port) const override;
  void get_local_ip_and_port(std::string& ip, int& port) const override;
  int socket() const override { return socket_; }

 private:
  // What came of one call that does not wait: bytes above 0, 0 at the end of the connection.
  struct Moved {
    ssize_t bytes = 0;
    short waits_for = 0;  // POLLIN or POLLOUT: nothing moved yet
  };

  // Of a call of OpenSSL that gave `result`.
  Moved Outcome(int result) const;
  Moved Receive(char* bytes, size_t size) const;
  Moved Send(const char* bytes, size_t size) const;
  // Throws away what still comes: a client that has not sent all would otherwise lose what it was told.
  Step Linger();
  void Refuse(int status);
  // Sends what is kept, waiting for the client as long as a piece may take.
  bool Flush() const;
  bool Wait(short events, absl::Time until) const;

  const int socket_;
  const RequestBounds bounds_;
  std::unique_ptr<SSL, decltype(&SSL_free)> ssl_;
  bool shaken_ = false;  // hands, for TLS
  absl::Time until_;
  std::string in_;   // this request, as far as it came, and what came with it of the next
  size_t next_ = 0;  // of in_, for read()
  RequestFrame frame_;
  size_t requests_ = 0;
  bool said_continue_ = false;
  mutable std::string out_;   // of the answer, not taken by the client yet
  mutable size_t sent_ = 0;   // of out_
  mutable bool streams_ = false;  // is_writable() is where a stream begins
  bool answering_ = false;  // out_ is of an answer, whose pieces have a time of their own
  bool last_ = false;
  bool refused_ = false;
  bool lingers_ = false;
};

}  // namespace rein::http

// RequestFrame finds where a request ends, so that a thread is given whole requests and never waits for a sender:
//
//   RequestFrame frame(bounds);
//   frame.Look(bytes);            // all that came of the request so far, again each time that more came
//   if (frame.whole() > 0) ...    // its size; what comes after it belongs to the next
//
// What cannot be framed, or is larger than allowed, has a refusal.

#pragma once

#include <cstddef>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace rein::http {

struct RequestBounds {
  size_t head_bytes = 64 << 10;  // request line and headers
  size_t body_bytes = 1 << 20;   // twice that where it comes in chunks, which have sizes of their own
  absl::Duration request = absl::Seconds(10);  // from its first byte to its last; and for a TLS handshake
  absl::Duration idle = absl::Seconds(5);      // before a request; what httplib tells clients
  absl::Duration piece = absl::Seconds(5);     // of an answer, until the client takes more of it
};

class RequestFrame {
 public:
  explicit RequestFrame(const RequestBounds& bounds) : bounds_(bounds) {}

  void Look(absl::string_view bytes);

  // 0: more must come, or it is refused.
  size_t whole() const { return whole_; }
  // The HTTP status to refuse it with; 0: none.
  int refusal() const { return refusal_; }
  // The client wants to hear "100 Continue" before it sends the body.
  bool expects_continue() const { return expects_continue_; }

 private:
  void ReadHead(absl::string_view head);
  void LookAtChunks(absl::string_view bytes);

  RequestBounds bounds_;
  size_t searched_ = 0;  // without an end of the head in it
  size_t head_ = 0;      // bytes of the head, once it is whole
  size_t length_ = 0;    // of the body
  bool in_chunks_ = false;
  size_t chunk_ = 0;        // where the next one begins
  bool in_trailer_ = false;  // the last chunk has come
  bool expects_continue_ = false;
  size_t whole_ = 0;
  int refusal_ = 0;
};

}  // namespace rein::http

// Intake takes requests from all connections of a port on one thread that never waits for any of them, and hands on those
// that are whole. Slow senders and slow readers cost memory for a while and no thread; when there are too many of them,
// those whose time ends first give way.
//
//   Intake intake(bounds, context, [&](BoundedConnection& connection) { /* to a thread that handles it, then: */
//     intake.Return(connection, /*last=*/false);
//   });
//   intake.Add(socket);
//
// Add() and Return() may be called on any thread.

#pragma once

#include <cstddef>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <thread>
#include <utility>
#include <vector>

#include "absl/time/time.h"

#include "common/http/bounded_connection.h"

namespace rein::http {

class Intake {
 public:
  // `context` as BoundedConnection's. `serve` is called on the intake's thread and must not wait; the connection is its own
  // until Return().
  Intake(const RequestBounds& bounds, SSL_CTX* context, std::function<void(BoundedConnection&)> serve);
  // Closes all connections; those that `serve` was given must have been returned.
  ~Intake();

  // Owns the socket from here on.
  void Add(int socket);
  // `last`: closed once the client has the answer.
  void Return(BoundedConnection& connection, bool last);

 private:
  struct Kept {
    std::unique_ptr<BoundedConnection> connection;
    absl::Time until;  // its place in order_; InfiniteFuture: handed on
    size_t held = 0;
  };

  void Run();
  void Wake();
  // Adds what was added, goes on with what was returned; false: to stop.
  bool TakeIn();
  void Advance(int socket);
  void Drop(int socket);
  // Those whose time is over, and, beyond what may be held, those whose time would end first.
  void DropLate();

  const RequestBounds bounds_;
  SSL_CTX* const context_;
  const std::function<void(BoundedConnection&)> serve_;
  const size_t most_;        // connections
  const size_t most_bytes_;  // held by all of them
  const int poll_;           // an epoll
  const int wake_;           // an eventfd

  std::mutex mutex_;  // of the three below
  bool stopping_ = false;
  std::vector<int> added_;
  std::vector<int> returned_;

  // Of the intake's thread.
  std::map<int, Kept> kept_;
  std::set<std::pair<absl::Time, int>> order_;
  size_t held_ = 0;

  std::thread thread_;
};

}  // namespace rein::http

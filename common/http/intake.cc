#include "common/http/intake.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdint>
#include <system_error>

#include "absl/time/clock.h"
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <unistd.h>

namespace rein::http {
namespace {

constexpr size_t kLargeBytes = 64 << 10;  // what smaller requests hold is not worth dropping them

// Connections hold a descriptor each, and the process needs some for its own files.
size_t MostConnections() {
  rlimit files{};
  getrlimit(RLIMIT_NOFILE, &files);
  return std::clamp<size_t>(files.rlim_cur / 2, 64, 2048);
}

// As std::thread does where there is no more of what it needs.
int Made(int descriptor, const char* what) {
  if (descriptor < 0) throw std::system_error(errno, std::generic_category(), what);
  return descriptor;
}

}  // namespace

Intake::Intake(const RequestBounds& bounds, SSL_CTX* context, std::function<void(BoundedConnection&)> serve)
    : bounds_(bounds),
      context_(context),
      serve_(std::move(serve)),
      most_(MostConnections()),
      most_bytes_(std::max<size_t>(64 << 20, 8 * (bounds.head_bytes + 2 * bounds.body_bytes))),
      poll_(Made(epoll_create1(EPOLL_CLOEXEC), "epoll_create1")),
      wake_(Made(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), "eventfd")) {
  epoll_event event{.events = EPOLLIN, .data = {.fd = wake_}};
  epoll_ctl(poll_, EPOLL_CTL_ADD, wake_, &event);
  thread_ = std::thread(&Intake::Run, this);
}

Intake::~Intake() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
  }
  Wake();
  thread_.join();
  kept_.clear();
  std::lock_guard<std::mutex> lock(mutex_);
  for (int socket : added_) close(socket);
  close(wake_);
  close(poll_);
}

void Intake::Add(int socket) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    added_.push_back(socket);
  }
  Wake();
}

void Intake::Return(BoundedConnection& connection, bool last) {
  connection.Answered(last);
  {
    std::lock_guard<std::mutex> lock(mutex_);
    returned_.push_back(connection.socket());
  }
  Wake();
}

void Intake::Wake() {
  const uint64_t one = 1;
  (void)!write(wake_, &one, sizeof(one));  // fails where it was woken 2^64 times
}

void Intake::Run() {
  std::array<epoll_event, 256> events;
  while (true) {
    int wait = -1;
    if (!order_.empty()) {
      const absl::Duration left = std::clamp(order_.begin()->first - absl::Now(), absl::ZeroDuration(), absl::Hours(1));
      wait = static_cast<int>(absl::ToInt64Milliseconds(absl::Ceil(left, absl::Milliseconds(1))));
    }
    const int count = epoll_wait(poll_, events.data(), static_cast<int>(events.size()), wait);
    // Before TakeIn(): a socket that was added may have the number of one that is dropped here.
    for (int i = 0; i < count; ++i) {
      if (events[static_cast<size_t>(i)].data.fd != wake_) Advance(events[static_cast<size_t>(i)].data.fd);
    }
    if (!TakeIn()) return;
    DropLate();
  }
}

bool Intake::TakeIn() {
  uint64_t times;  // read first: who wakes later finds the eventfd ready again
  (void)!read(wake_, &times, sizeof(times));
  std::vector<int> added, returned;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (stopping_) return false;
    added.swap(added_);
    returned.swap(returned_);
  }
  for (int socket : returned) {
    kept_.at(socket).until = absl::InfinitePast();
    Advance(socket);
  }
  for (int socket : added) {
    if (kept_.size() >= most_) {
      if (order_.empty()) {
        close(socket);
        continue;
      }
      Drop(order_.begin()->second);
    }
    kept_[socket] = {.connection = std::make_unique<BoundedConnection>(socket, context_, bounds_), .until = absl::InfinitePast()};
    epoll_event event{.events = EPOLLONESHOT, .data = {.fd = socket}};
    epoll_ctl(poll_, EPOLL_CTL_ADD, socket, &event);
    Advance(socket);
  }
  return true;
}

void Intake::Advance(int socket) {
  auto found = kept_.find(socket);
  if (found == kept_.end() || found->second.until == absl::InfiniteFuture()) return;  // dropped, or another's for now
  Kept& kept = found->second;
  order_.erase({kept.until, socket});
  const BoundedConnection::Step step = kept.connection->Advance();
  held_ += kept.connection->held() - kept.held;
  kept.held = kept.connection->held();
  if (step == BoundedConnection::Step::kEnd) {
    Drop(socket);
  } else if (step == BoundedConnection::Step::kWhole) {
    kept.until = absl::InfiniteFuture();
    serve_(*kept.connection);
  } else {
    kept.until = kept.connection->until();
    order_.emplace(kept.until, socket);
    const uint32_t wanted = step == BoundedConnection::Step::kRead ? EPOLLIN : EPOLLOUT;
    epoll_event event{.events = EPOLLONESHOT | wanted, .data = {.fd = socket}};
    epoll_ctl(poll_, EPOLL_CTL_MOD, socket, &event);
  }
}

void Intake::Drop(int socket) {
  auto found = kept_.find(socket);
  order_.erase({found->second.until, socket});
  held_ -= found->second.held;
  kept_.erase(found);  // closes it, which takes it out of the epoll
}

void Intake::DropLate() {
  while (!order_.empty() && order_.begin()->first <= absl::Now()) Drop(order_.begin()->second);
  while (held_ > most_bytes_) {
    std::vector<int> large;
    for (const auto& [until, socket] : order_) {
      if (kept_.at(socket).held > kLargeBytes) large.push_back(socket);
    }
    if (large.size() < 2) return;  // one alone may have a large answer
    Drop(large.front());
  }
}

}  // namespace rein::http

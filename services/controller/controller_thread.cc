#include "services/controller/controller_thread.h"

#include <algorithm>

#include "common/status/status_macros.h"

namespace rein::services {
namespace {

// Bounds the harm of a wake-up that was missed.
constexpr absl::Duration kLongestSleep = absl::Seconds(1);

}  // namespace

absl::StatusOr<std::unique_ptr<ControllerThread>> ControllerThread::Start(
    const sync::Clock& clock,
    const std::function<absl::StatusOr<std::unique_ptr<Controller>>(std::function<void()>)>& make) {
  auto thread = std::unique_ptr<ControllerThread>(new ControllerThread(clock));
  REIN_ASSIGN_OR_RETURN(thread->controller_, make([raw = thread.get()] { raw->Wake(); }));
  thread->thread_ = std::thread([raw = thread.get()] { raw->Run(); });
  return thread;
}

ControllerThread::ControllerThread(const sync::Clock& clock)
    : clock_(clock), mailbox_([this] { Wake(); }) {}

ControllerThread::~ControllerThread() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stop_ = true;
    changed_.notify_all();
  }
  if (thread_.joinable()) thread_.join();
  controller_.reset();
}

void ControllerThread::Wake() {
  std::lock_guard<std::mutex> lock(mutex_);
  woken_ = true;
  changed_.notify_all();
}

uint64_t ControllerThread::events() {
  std::lock_guard<std::mutex> lock(mutex_);
  return events_;
}

void ControllerThread::WaitForEvents(uint64_t seen, absl::Duration timeout) {
  std::unique_lock<std::mutex> lock(mutex_);
  changed_.wait_for(lock, absl::ToChronoNanoseconds(timeout),
                    [this, seen] { return stop_ || events_ != seen; });
}

void ControllerThread::Run() {
  while (true) {
    mailbox_.Drain();
    absl::Time until = controller_->Step();
    std::unique_lock<std::mutex> lock(mutex_);
    if (events_ != controller_->events_appended()) {
      events_ = controller_->events_appended();
      changed_.notify_all();
    }
    absl::Duration sleep = std::clamp(until - clock_.Now(), absl::ZeroDuration(), kLongestSleep);
    changed_.wait_for(lock, absl::ToChronoNanoseconds(sleep), [this] { return stop_ || woken_; });
    woken_ = false;
    if (stop_) break;
  }
  mailbox_.Drain();  // nobody waits for ever
}

}  // namespace rein::services

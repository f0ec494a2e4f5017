// Mailbox carries what other threads have to tell to the controller's own thread.
//
// Post() may be called from any thread; Drain() runs what has come, in order, on the caller's
// thread. What is still inside when the mailbox is destroyed never runs.

#pragma once

#include <functional>
#include <mutex>
#include <utility>
#include <vector>

namespace rein::services {

class Mailbox {
 public:
  using Letter = std::function<void()>;

  // `wake` is called after each Post(), from its thread; may be empty.
  explicit Mailbox(std::function<void()> wake = nullptr) : wake_(std::move(wake)) {}

  void Post(Letter letter) {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      letters_.push_back(std::move(letter));
    }
    if (wake_) wake_();
  }

  // Returns how many ran.
  size_t Drain() {
    std::vector<Letter> letters;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      letters.swap(letters_);
    }
    for (Letter& letter : letters) letter();
    return letters.size();
  }

 private:
  const std::function<void()> wake_;
  std::mutex mutex_;
  std::vector<Letter> letters_;
};

}  // namespace rein::services

#include "reward/scoring/worker_pool.h"

#include <utility>

namespace rein::reward {

WorkerPool::WorkerPool(int threads, int max_stuck) : max_stuck_(max_stuck) {
  std::lock_guard<std::mutex> lock(mutex_);
  for (int i = 0; i < threads; ++i) Start();
}

WorkerPool::~WorkerPool() {
  std::vector<std::thread> threads;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
    jobs_.clear();
    threads.swap(threads_);
  }
  changed_.notify_all();
  for (std::thread& thread : threads) thread.join();
}

void WorkerPool::Start() {
  if (ended_.empty()) {
    size_t slot = threads_.size();
    threads_.emplace_back([this, slot] { Work(slot); });
    return;
  }
  size_t slot = ended_.back();
  ended_.pop_back();
  threads_[slot].join();
  threads_[slot] = std::thread([this, slot] { Work(slot); });
}

void WorkerPool::Submit(Job job) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    jobs_.push_back(std::move(job));
  }
  changed_.notify_one();
}

bool WorkerPool::ReplaceStuck() {
  std::lock_guard<std::mutex> lock(mutex_);
  if (stopping_) return false;
  ++stuck_;
  if (stuck_ > max_stuck_) {
    ++unreplaced_;
    return false;
  }
  Start();
  return true;
}

int WorkerPool::stuck() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return stuck_;
}

void WorkerPool::Work(size_t slot) {
  std::unique_lock<std::mutex> lock(mutex_);
  while (true) {
    changed_.wait(lock, [this] { return stopping_ || !jobs_.empty(); });
    if (stopping_) return;
    Job job = std::move(jobs_.front());
    jobs_.pop_front();
    lock.unlock();
    bool counted_out = job();
    job = nullptr;
    lock.lock();
    if (!counted_out) continue;
    --stuck_;
    if (unreplaced_ > 0) {  // nobody took this thread's place
      --unreplaced_;
      continue;
    }
    if (!stopping_) ended_.push_back(slot);
    return;
  }
}

}  // namespace rein::reward

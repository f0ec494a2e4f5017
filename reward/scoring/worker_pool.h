// WorkerPool runs jobs on a few threads, and replaces a thread whose job does not come back.
//
// A thread cannot be killed: a stuck one is counted out, a new one takes its place, and the stuck
// one ends by itself once its job returns. Thread-safe.

#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace rein::reward {

class WorkerPool {
 public:
  // True: the job was counted out by ReplaceStuck() meanwhile, and its thread must end.
  using Job = std::function<bool()>;

  // At most `max_stuck` threads are replaced at a time; `threads` is at least 1.
  WorkerPool(int threads, int max_stuck);
  // Drops waiting jobs and waits for the running ones, stuck ones included.
  ~WorkerPool();

  void Submit(Job job);

  // Starts a thread in place of one that is stuck. False when max_stuck threads are stuck already:
  // then the pool has one worker less until a stuck job returns.
  bool ReplaceStuck();

  int stuck() const;

 private:
  void Start();
  void Work(size_t slot);

  const int max_stuck_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Job> jobs_;
  std::vector<std::thread> threads_;
  std::vector<size_t> ended_;  // slots of threads_ that can be joined and used again
  int stuck_ = 0;
  int unreplaced_ = 0;
  bool stopping_ = false;
};

}  // namespace rein::reward

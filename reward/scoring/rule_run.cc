#include "reward/scoring/rule_run.h"

#include <algorithm>
#include <condition_variable>
#include <exception>
#include <functional>
#include <mutex>
#include <utility>

#include "absl/strings/str_cat.h"

namespace rein::reward {
namespace {

// A network call ends by itself at its deadline; only then it counts as stuck.
constexpr absl::Duration kBatchGrace = absl::Seconds(1);
// More threads than that never work on one run.
constexpr size_t kMaxWorkers = 64;

enum class Phase { kWaiting, kRunning, kDone };

// One call of one rule: for one item, or for all that it is for.
struct Task {
  size_t rule;
  std::vector<size_t> items;
  Phase phase = Phase::kWaiting;
  absl::Time expires = absl::InfiniteFuture();
};

absl::Status TooLong(absl::Duration limit) {
  return absl::DeadlineExceededError(
      absl::StrCat("took longer than ", absl::FormatDuration(limit)));
}

// Shared by the caller and the workers; outlives the caller for as long as a worker is stuck.
class Run : public std::enable_shared_from_this<Run> {
 public:
  Run(std::vector<NamedRule> rules, Items items, const sync::Clock& clock)
      : rules_(std::move(rules)), items_(std::move(items)), clock_(clock) {
    timeouts_.assign(rules_.size(), 0);
    Scores none(items_->size(), absl::DeadlineExceededError("not scored when the call ended"));
    results_.assign(rules_.size(), RuleScores{none, absl::ZeroDuration()});
    for (const NamedRule& rule : rules_) least_timeout_ = std::min(least_timeout_, rule.timeout);
    std::vector<Task> batches(rules_.size());
    for (size_t item = 0; item < items_->size(); ++item) {  // so that no rule waits for another
      for (size_t rule = 0; rule < rules_.size(); ++rule) {
        if (rules_[rule].applies && !rules_[rule].applies((*items_)[item])) {
          Verdict skipped(0);
          skipped.skipped = true;
          results_[rule].scores[item] = std::move(skipped);
        } else if (rules_[rule].item) {
          tasks_.push_back({rule, {item}});
        } else {
          batches[rule].rule = rule;
          batches[rule].items.push_back(item);
        }
      }
    }
    for (Task& batch : batches) {  // at the front: they wait for others
      if (!batch.items.empty()) tasks_.insert(tasks_.begin(), std::move(batch));
    }
    unfinished_ = tasks_.size();
  }

  std::vector<RuleScores> Finish(absl::Time deadline, WorkerPool& pool);

  // Works on tasks until none waits. True: the thread was counted out.
  bool Drain();

 private:
  Scores Call(const Task& task) const;
  void Store(Task& task, Scores scores);
  void Expire(absl::Time now, WorkerPool& pool);

  const std::vector<NamedRule> rules_;
  const Items items_;
  const sync::Clock& clock_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Task> tasks_;
  size_t next_ = 0;  // first task that nobody took
  size_t unfinished_ = 0;
  std::vector<int> timeouts_;    // of each rule
  std::vector<size_t> running_;  // indices of tasks
  absl::Duration least_timeout_ = absl::InfiniteDuration();
  std::vector<RuleScores> results_;
};

bool Run::Drain() {
  std::unique_lock<std::mutex> lock(mutex_);
  while (next_ < tasks_.size()) {
    const size_t index = next_++;
    Task& task = tasks_[index];
    const NamedRule& rule = rules_[task.rule];
    if (timeouts_[task.rule] >= kMaxTimeouts) {
      Store(task, Scores(task.items.size(), absl::DeadlineExceededError(absl::StrCat(
                                                "not tried after ", kMaxTimeouts, " timeouts"))));
      continue;
    }
    const absl::Time start = clock_.Now();
    task.phase = Phase::kRunning;
    task.expires = start + rule.timeout + (rule.batch ? kBatchGrace : absl::ZeroDuration());
    running_.push_back(index);
    lock.unlock();
    Scores scores = Call(task);
    lock.lock();
    if (task.phase == Phase::kDone) return true;  // it was given up
    running_.erase(std::find(running_.begin(), running_.end(), index));
    results_[task.rule].elapsed += clock_.Now() - start;
    Store(task, std::move(scores));
  }
  return false;
}

Scores Run::Call(const Task& task) const {
  const NamedRule& rule = rules_[task.rule];
  try {
    if (rule.batch) {
      std::vector<v1::RewardItem> some;
      const bool all = task.items.size() == items_->size();
      for (size_t i = 0; !all && i < task.items.size(); ++i)
        some.push_back((*items_)[task.items[i]]);
      Scores scores = rule.batch(all ? *items_ : some, rule.timeout);
      if (scores.size() == task.items.size()) return scores;
      return Scores(task.items.size(),
                    absl::InternalError(
                        absl::StrCat("gave ", scores.size(), " scores for ", task.items.size())));
    }
    absl::Time expires = task.expires;
    return {
        rule.item((*items_)[task.items[0]], [this, expires] { return clock_.Now() >= expires; })};
  } catch (const std::exception& error) {
    return Scores(task.items.size(), absl::InternalError(absl::StrCat("crashed: ", error.what())));
  }
}

void Run::Store(Task& task, Scores scores) {
  task.phase = Phase::kDone;
  for (size_t i = 0; i < scores.size(); ++i) {
    results_[task.rule].scores[task.items[i]] = std::move(scores[i]);
  }
  if (--unfinished_ == 0) changed_.notify_one();
}

// Gives up on the running tasks whose time is over.
void Run::Expire(absl::Time now, WorkerPool& pool) {
  auto late = [&](size_t index) { return tasks_[index].expires <= now; };
  auto first = std::stable_partition(running_.begin(), running_.end(), std::not_fn(late));
  for (auto it = first; it != running_.end(); ++it) {
    Task& task = tasks_[*it];
    ++timeouts_[task.rule];
    Store(task, Scores(task.items.size(), TooLong(rules_[task.rule].timeout)));
    if (pool.ReplaceStuck()) pool.Submit([run = shared_from_this()] { return run->Drain(); });
  }
  running_.erase(first, running_.end());
}

std::vector<RuleScores> Run::Finish(absl::Time deadline, WorkerPool& pool) {
  const size_t drains = std::min<size_t>(tasks_.size(), kMaxWorkers);
  for (size_t i = 0; i < drains; ++i) {
    pool.Submit([run = shared_from_this()] { return run->Drain(); });
  }
  std::unique_lock<std::mutex> lock(mutex_);
  while (unfinished_ > 0) {
    absl::Time now = clock_.Now();
    if (now >= deadline) break;
    Expire(now, pool);
    if (unfinished_ == 0) break;
    absl::Time wake =
        std::min(deadline, now + least_timeout_);  // none that begins now is late before
    for (size_t index : running_) wake = std::min(wake, tasks_[index].expires);
    changed_.wait_for(lock, absl::ToChronoNanoseconds(wake - now));
  }
  next_ = tasks_.size();  // nobody begins another
  for (size_t index : running_) {
    tasks_[index].phase = Phase::kDone;
    pool.ReplaceStuck();
  }
  return std::move(results_);
}

}  // namespace

std::vector<RuleScores> RunRules(const std::vector<NamedRule>& rules, Items items,
                                 absl::Time deadline, const sync::Clock& clock, WorkerPool& pool) {
  return std::make_shared<Run>(rules, std::move(items), clock)->Finish(deadline, pool);
}

}  // namespace rein::reward

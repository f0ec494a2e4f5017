// RunRules scores items by rules on a WorkerPool, and gives up on what takes too long.
//
// Every (rule, item) has the rule's time, counted from when it starts. One that exceeds it gets
// DEADLINE_EXCEEDED and its thread is replaced; once a rule did so kMaxTimeouts times in one run,
// the items that it has not begun fail at once. So a hung rule costs its own rollouts and no other
// rule anything.

#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "common/sync/clock.h"
#include "reward/rules/rule.h"
#include "reward/scoring/worker_pool.h"

namespace rein::reward {

inline constexpr int kMaxTimeouts = 8;

using Items = std::shared_ptr<const std::vector<v1::RewardItem>>;
using Scores = std::vector<absl::StatusOr<Verdict>>;

// Scores all given items in one go; as many scores as items. For scorers behind a network.
using BatchRule = std::function<Scores(const std::vector<v1::RewardItem>&, absl::Duration timeout)>;

// One rule of a job; exactly one of `item` and `batch` is set.
struct NamedRule {
  std::string name;
  double weight = 1.0;
  absl::Duration timeout = absl::Seconds(10);
  Rule item;
  BatchRule batch;
  // Which items it is for; empty: for all. The others' verdicts are `skipped`.
  std::function<bool(const v1::RewardItem&)> applies;
};

// How one rule fared.
struct RuleScores {
  Scores scores;           // one for each item
  absl::Duration elapsed;  // sum over its finished calls
};

// One result for each rule. What is not finished at `deadline` is DEADLINE_EXCEEDED. Calls that
// hang beyond the run keep the items alive; the clock must outlive the pool.
std::vector<RuleScores> RunRules(const std::vector<NamedRule>& rules, Items items,
                                 absl::Time deadline, const sync::Clock& clock, WorkerPool& pool);

}  // namespace rein::reward

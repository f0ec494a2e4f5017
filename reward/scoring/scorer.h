// Scorer applies a job's reward rules to completions and sums their scores with the rules' weights.
//
//   REIN_ASSIGN_OR_RETURN(auto scorer, Scorer::Create({.threads = 4}, clock));
//   REIN_ASSIGN_OR_RETURN(v1::ScoreRewardsReply reply, scorer->Score(request, deadline));
//
// Stateless between calls and thread-safe.

#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "common/sync/clock.h"
#include "rein/v1/reward.pb.h"
#include "reward/scoring/rule_run.h"
#include "reward/scoring/worker_pool.h"

namespace rein::reward {

// Asks the RewardService at `address` ("host:port").
using RemoteScorer = std::function<absl::StatusOr<v1::ScoreRewardsReply>(
    const std::string& address, const v1::ScoreRewardsRequest& request, absl::Duration timeout)>;

// Told of each rule of each call, for metrics.
using RuleObserver = std::function<void(const std::string& rule, const RuleScores& scores)>;

struct ScorerOptions {
  // Threads that score; a hung rule takes one until it is given up.
  int threads = 2;
  // Threads that may hang at a time before the pool shrinks.
  int max_stuck = 32;
  // Serves `remote` and `model` rules; empty: they are refused.
  RemoteScorer remote;
  RuleObserver observer;
};

class Scorer {
 public:
  // The clock must outlive the scorer.
  static absl::StatusOr<std::unique_ptr<Scorer>> Create(ScorerOptions options,
                                                        const sync::Clock& clock);

  // One result for each item, in order; an item that a rule could not score has an `error` that
  // names the rule. INVALID_ARGUMENT names the rules that are wrong in themselves, and says so when
  // there are none.
  absl::StatusOr<v1::ScoreRewardsReply> Score(const v1::ScoreRewardsRequest& request,
                                              absl::Time deadline);

 private:
  Scorer(ScorerOptions options, const sync::Clock& clock)
      : options_(std::move(options)), clock_(clock), pool_(options_.threads, options_.max_stuck) {}

  // `model_scorers` as in the request.
  absl::StatusOr<NamedRule> MakeNamedRule(const v1::RewardConfig& config,
                                          const std::vector<std::string>& model_scorers) const;

  const ScorerOptions options_;
  const sync::Clock& clock_;
  mutable std::atomic<uint64_t> next_model_scorer_ = 0;
  WorkerPool pool_;
};

}  // namespace rein::reward

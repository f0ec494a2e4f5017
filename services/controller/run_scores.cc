// The part of RunLoop that has groups scored: by rewards and by the reference.

#include <algorithm>
#include <set>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

#include "common/config/job_kind.h"
#include "common/config/reward_rule.h"
#include "services/controller/run_loop.h"

namespace rein::services {
namespace {

constexpr absl::Duration kReferenceDeadline = absl::Minutes(30);
constexpr absl::Duration kScoreMargin = absl::Seconds(30);

// The values of sampled tokens among those of all.
std::vector<float> OfSampled(const std::vector<float>& values, const std::string& mask) {
  std::vector<float> sampled;
  for (size_t i = 0; i < std::min(values.size(), mask.size()); ++i) {
    if (mask[i] == 1) sampled.push_back(values[i]);
  }
  return sampled;
}

// What a call of several texts says of one. Which of them was wrong is not known: each is asked for again.
absl::StatusOr<v1::ScoreTokensReply> PartOf(const absl::StatusOr<v1::ScoreTokensReply>& reply, size_t index) {
  if (absl::IsInvalidArgument(reply.status())) return absl::InternalError(reply.status().message());
  if (!reply.ok()) return reply.status();
  v1::ScoreTokensReply part;
  if (static_cast<int>(index) < reply->sequences_size()) {
    *part.add_sequences() = reply->sequences(static_cast<int>(index));
  }
  return part;
}

}  // namespace

bool RunLoop::Referenced(const Group& group) const {
  return !state_.plan.reference || group.Usable() == 0 || references_.count({group.order, 0}) > 0;
}

std::vector<uint32_t> RunLoop::SiblingsToScore(Key key) const {
  if (key.first) return evaluation_->items().at(key.second).UnscoredSamples();
  std::vector<uint32_t> siblings;
  if (!state_.plan.scores) return siblings;
  const Group& group = *ledger_->Find(key.second);
  for (uint32_t i = 0; i < group.siblings.size(); ++i) {
    bool known = group.siblings[i].scored || rewards_.count({key.second, i}) > 0;
    if (!known) siblings.push_back(i);
  }
  return siblings;
}

void RunLoop::Score(const Action& action) {
  PooledActor& rewarder = *pool_.Find(action.actor);
  absl::Duration deadline = kScoreMargin;
  for (const v1::RewardConfig& rule : state_.job.config.rewards()) {
    deadline += absl::Seconds(config::TimeoutSeconds(rule));
  }
  std::vector<std::string> model_scorers;
  for (const ActorView& reference : pool_.Views("reference")) {
    if (state_.plan.reward_models && reference.loaded) {
      model_scorers.push_back(pool_.Find(reference.name)->actor.address());
    }
  }
  for (const WaitingGroup& waiting : action.groups) {
    const Key key{waiting.held_out, waiting.order};
    absl::StatusOr<Prompt> prompt = PromptOf(key);
    if (!state_.Check(prompt.status())) return;
    v1::ScoreRewardsRequest request;
    *request.mutable_rules() = state_.job.config.rewards();
    if (state_.job.config.has_reward_clip()) {
      *request.mutable_clip() = state_.job.config.reward_clip();
    }
    request.mutable_model_scorers()->Add(model_scorers.begin(), model_scorers.end());
    for (uint32_t sibling : SiblingsToScore(key)) {
      v1::RewardItem* item = request.add_items();
      item->set_id(absl::StrCat(state_.job.name, "/", key.second, "/", sibling));
      if (key.first) {
        const Evaluation::Sample& sample = evaluation_->items()[key.second].samples[sibling];
        FillRewardItem(*sample.rollout, sample.prompt, item);
      } else {
        absl::StatusOr<v1::StoredRollout> stored = ledger_->Read(key.second, sibling);
        if (!state_.Check(stored.status())) return;
        FillRewardItem(stored->rollout(), {stored->prompt().begin(), stored->prompt().end()}, item);
      }
      *item->mutable_columns() = prompt->columns;
      item->set_answer(prompt->answer);
    }
    const uint64_t call = state_.next_call++;
    scoring_[key] = {.actor = action.actor, .call = call, .started = state_.deps.clock.Now()};
    ++rewarder.view.in_flight;
    rewarder.rewarder->Score(request, deadline, [this, key, call](auto reply) {
      mailbox_.Post([this, key, call, reply = std::move(reply)]() mutable {
        OnScored(key, call, std::move(reply));
      });
    });
  }
}

void RunLoop::OnScored(Key key, uint64_t call, absl::StatusOr<v1::ScoreRewardsReply> reply) {
  auto work = scoring_.find(key);
  if (work == scoring_.end() || work->second.call != call) return;
  // Groups are scored side by side: the span is told, not the sum.
  state_.times.score_begin = std::min(state_.times.score_begin, work->second.started);
  state_.times.score_end = state_.deps.clock.Now();
  Finish(scoring_, key, call, reply.status());
  if (absl::IsInvalidArgument(reply.status())) {
    return state_.Fail(absl::StrCat("rewards: ", std::string(reply.status().message())));
  }
  if (!reply.ok()) return GroupFailed(key, "score", reply.status());
  if (reply->results_size() != static_cast<int>(SiblingsToScore(key).size())) {
    return GroupFailed(
        key, "score",
        absl::InternalError(absl::StrCat("the reward service gave ", reply->results_size(),
                                         " results for ", SiblingsToScore(key).size(), " items")));
  }
  TakeRewards(key, *reply);
}

void RunLoop::TakeRewards(Key key, const v1::ScoreRewardsReply& reply) {
  Retry& retry = retries_[key];
  ++retry.failures;
  bool last_try = retry.failures >= static_cast<int>(state_.job.config.failure().max_attempts());
  std::vector<uint32_t> siblings = SiblingsToScore(key);
  for (size_t i = 0; i < siblings.size(); ++i) {
    const v1::RewardResult& result = reply.results(static_cast<int>(i));
    if (!result.error().empty() && !last_try) {
      retry.not_before = state_.deps.clock.Now() + RetryPause(retry.failures);
      continue;
    }
    if (!key.first) {
      rewards_[{key.second, siblings[i]}] = result;
    } else if (result.error().empty()) {
      evaluation_->items().at(key.second).samples[siblings[i]].result = result;
    } else {
      evaluation_->items().at(key.second).samples[siblings[i]].given_up = result.error();
    }
  }
  if (!key.first) CloseIfScored(key.second);
}

// Texts are single sequences, so many go into one call; one that failed before goes alone, lest it spoil the others.
std::vector<std::vector<uint64_t>> RunLoop::ReferenceCalls(const Action& action) const {
  std::vector<std::vector<uint64_t>> calls;
  bool open = false;  // the last call takes more
  for (const WaitingGroup& waiting : action.groups) {
    auto retry = retries_.find({false, waiting.order});
    const bool alone = state_.plan.kind != Plan::Kind::kCollect ||
                       (retry != retries_.end() && retry->second.failures > 0);
    if (alone || !open) calls.emplace_back();
    calls.back().push_back(waiting.order);
    open = !alone;
  }
  return calls;
}

void RunLoop::ScoreReference(const Action& action) {
  for (const std::vector<uint64_t>& orders : ReferenceCalls(action)) AskReference(action.actor, orders);
}

void RunLoop::AskReference(const std::string& actor, const std::vector<uint64_t>& orders) {
  PooledActor& reference = *pool_.Find(actor);
  v1::ScoreTokensRequest request;
  std::vector<std::pair<uint64_t, uint64_t>> asked;  // order, call
  for (uint64_t order : orders) {
    const Group& group = *ledger_->Find(order);
    const v1::GrpoConfig* rl = config::PolicyGradientOf(state_.job.config);
    request.set_temperature(rl != nullptr ? rl->temperature()
                                          : state_.job.config.score().temperature());
    for (uint32_t i = 0; i < group.siblings.size(); ++i) {
      if (group.siblings[i].failed) continue;
      absl::StatusOr<v1::StoredRollout> stored = ledger_->Read(order, i);
      if (!state_.Check(stored.status())) return;
      const v1::Rollout& rollout = stored->rollout();
      v1::TokenSequence* sequence = request.add_sequences();
      *sequence->mutable_token_ids() = rollout.prompt_token_ids();
      sequence->mutable_token_ids()->MergeFrom(rollout.completion().token_ids());
      sequence->set_prefix(static_cast<uint32_t>(rollout.prompt_token_ids_size()));
    }
    asked.emplace_back(order, state_.next_call++);
    referencing_[{false, order}] = {
        .actor = actor, .call = asked.back().second, .started = state_.deps.clock.Now()};
    ++reference.view.in_flight;
  }
  *request.mutable_fence() =
      state_.FreshFence(reference.actor, absl::StrCat("reference/", orders.front()));
  reference.reference->Score(request, kReferenceDeadline, [this, asked](auto reply) {
    mailbox_.Post([this, asked, reply = std::move(reply)]() mutable {
      if (asked.size() == 1) return OnReference(asked[0].first, asked[0].second, std::move(reply));
      for (size_t i = 0; i < asked.size(); ++i) OnReference(asked[i].first, asked[i].second, PartOf(reply, i));
    });
  });
}

void RunLoop::OnReference(uint64_t order, uint64_t call,
                          absl::StatusOr<v1::ScoreTokensReply> reply) {
  if (!Finish(referencing_, {false, order}, call, reply.status())) return;
  const Group& group = *ledger_->Find(order);
  if (group.state != GroupState::kFinished) return;
  if (!reply.ok()) return GroupFailed({false, order}, "score by the reference", reply.status());
  if (reply->sequences_size() != static_cast<int>(group.Usable())) {
    return GroupFailed({false, order}, "score by the reference",
                       absl::InternalError("another number of sequences came back"));
  }
  references_[{order, 0}] = {};  // says that the group has been answered, also where sibling 0 failed
  int next = 0;
  for (uint32_t i = 0; i < group.siblings.size(); ++i) {
    if (group.siblings[i].failed) continue;
    const auto& logprobs = reply->sequences(next++).logprobs();
    std::vector<float>& kept = references_[{order, i}] = {logprobs.begin(), logprobs.end()};
    if (!plays()) continue;
    absl::StatusOr<v1::StoredRollout> stored = ledger_->Read(order, i);
    if (!state_.Check(stored.status())) return;
    kept = OfSampled(kept, SampledMask(stored->rollout()));
  }
  CloseIfScored(order);
}

void RunLoop::CloseIfScored(uint64_t order) {
  const Group& group = *ledger_->Find(order);
  if (group.state != GroupState::kFinished || !SiblingsToScore({false, order}).empty()) return;
  if (!Referenced(group)) return;
  std::string error;
  size_t usable = 0;
  std::set<double> values;
  bool baseline = !state_.plan.greedy_sibling;
  for (uint32_t i = 0; i < group.siblings.size(); ++i) {
    if (group.siblings[i].failed) {  // it came with its error
      absl::StatusOr<v1::StoredRollout> stored = ledger_->Read(order, i);
      if (!state_.Check(stored.status())) return;
      error = stored->rollout().reward().error();
      references_.erase({order, i});
      continue;
    }
    const v1::RewardResult& reward = rewards_[{order, i}];
    if (!reward.error().empty()) {
      error = reward.error();
    } else if (i < state_.plan.group_size) {
      ++usable;
      values.insert(reward.reward());
    } else {
      baseline = true;
    }
    state_.Check(ledger_->Score(order, i, reward, references_[{order, i}]));
    rewards_.erase({order, i});
    references_.erase({order, i});
  }
  retries_.erase({false, order});
  if (state_.plan.kind == Plan::Kind::kCollect) {  // what could not be scored says so in the results
    state_.Check(ledger_->Scored(order));
    return;
  }
  NotePassRate(group);
  // One sibling alone has nothing to be compared with, unless it was meant to be alone.
  if (usable < std::min<size_t>(2, state_.plan.group_size) || !baseline) {
    return GiveUp({false, order}, absl::StrCat(absl::StartsWith(error, "environment: ") ? "" : "score: ", error));
  }
  if (state_.plan.needs_signal && values.size() < 2) {
    return GiveUp({false, order}, absl::StrCat("dynamic_sampling: every reward is ", *values.begin()));
  }
  given_up_in_row_ = 0;
  state_.Check(ledger_->Scored(order));
}

}  // namespace rein::services

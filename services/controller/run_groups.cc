// The part of RunLoop that generates groups and gives them up.

#include <algorithm>

#include "absl/strings/str_cat.h"

#include "common/config/job_kind.h"
#include "services/controller/run_loop.h"

namespace rein::services {
namespace {

constexpr absl::Duration kGenerateDeadline = absl::Hours(1);
constexpr absl::Duration kAbortDeadline = absl::Seconds(10);

// Which siblings to ask for next: the greedy one, if there is one, in a request of its own.
std::vector<uint32_t> NextSiblings(const Group& group, const Plan& plan) {
  std::vector<uint32_t> missing = group.MissingSiblings();
  const bool alone = missing.size() == 1;
  if (plan.greedy_sibling && !alone) std::erase(missing, plan.group_size);
  return missing;
}

template <typename Config>
void SetPenalties(const Config& config, v1::SamplingParams& sampling) {
  sampling.set_repetition_penalty(config.repetition_penalty());
  sampling.set_presence_penalty(config.presence_penalty());
  sampling.set_frequency_penalty(config.frequency_penalty());
}

v1::SamplingParams SamplingOf(const v1::JobConfig& config) {
  v1::SamplingParams sampling;
  const v1::GrpoConfig* rl = config::PolicyGradientOf(config);
  sampling.set_seed(config.seed());
  if (config.has_generate()) {
    const v1::GenerateConfig& generate = config.generate();
    sampling.set_temperature(generate.temperature());
    sampling.set_top_k(generate.top_k());
    sampling.set_top_p(generate.top_p());
    sampling.set_min_p(generate.min_p());
    sampling.set_max_tokens(generate.max_completion_tokens());
    SetPenalties(generate, sampling);
    return sampling;
  }
  sampling.set_temperature(rl->temperature());
  sampling.set_top_k(rl->top_k());
  sampling.set_top_p(rl->top_p());
  sampling.set_max_tokens(rl->max_completion_tokens());
  SetPenalties(*rl, sampling);
  return sampling;
}

}  // namespace

absl::StatusOr<Prompt> RunLoop::PromptOf(Key key) {
  if (key.first) return *evaluation_->items().at(key.second).prompt;
  return state_.deps.train->Read(ledger_->Find(key.second)->id.prompt());
}

PromptSource& RunLoop::SourceOf(Key key) {
  return key.first ? evaluation_->SourceOf(key.second) : *state_.deps.train;
}

void RunLoop::Generate(const Action& action) {
  PooledActor& generator = *pool_.Find(action.actor);
  for (const WaitingGroup& group : action.groups) {
    if (group.held_out) continue;
    state_.Check(ledger_->Generating(group.order, ToProto(generator.view.version)));
  }
  if (!state_.Commit()) return;
  state_.times.generate_begin = std::min(state_.times.generate_begin, state_.deps.clock.Now());
  for (const WaitingGroup& group : action.groups) {
    StartGenerate(generator, {group.held_out, group.order});
  }
}

void RunLoop::StartGenerate(PooledActor& generator, Key key) {
  absl::StatusOr<Prompt> prompt = PromptOf(key);
  if (!prompt.ok()) return GiveUp(key, std::string(prompt.status().message()));
  v1::GenerateRequest request;
  *request.mutable_fence() = state_.FreshFence(
      generator.actor, absl::StrCat(key.first ? "eval/" : "generate/", key.second));
  request.mutable_prompt_token_ids()->Add(prompt->token_ids.begin(), prompt->token_ids.end());
  *request.mutable_sampling() =
      key.first ? evaluation_->SamplingOf(key.second) : SamplingOf(state_.job.config);
  if (key.first) {
    *request.mutable_group() = evaluation_->GroupOf(key.second);
    const std::vector<uint32_t> wanted = evaluation_->items().at(key.second).MissingSamples();
    request.mutable_siblings()->Add(wanted.begin(), wanted.end());
  } else {
    const Group& group = *ledger_->Find(key.second);
    *request.mutable_group() = group.id;
    std::vector<uint32_t> wanted = NextSiblings(group, state_.plan);
    request.mutable_siblings()->Add(wanted.begin(), wanted.end());
    if (wanted.front() == state_.plan.group_size) request.mutable_sampling()->set_temperature(0);
  }
  const uint64_t call = state_.next_call++;
  generating_[key] = {
      .actor = generator.view.name, .call = call, .started = state_.deps.clock.Now()};
  ++generator.view.in_flight;
  if (plays()) {
    return episodes_.Play(
        call, generator, request, SourceOf(key), *std::move(prompt),
        [this, key, call](PlayedEpisode episode) { OnEpisode(key, call, std::move(episode)); },
        [this, key, call](const absl::Status& status) { OnGenerated(key, call, status); });
  }
  generator.generator->Generate(
      request, kGenerateDeadline,
      [this, key, call](v1::Rollout rollout) {
        mailbox_.Post([this, key, call, rollout = std::move(rollout)]() mutable {
          OnRollout(key, call, std::move(rollout));
        });
      },
      [this, key, call](absl::Status status) {
        mailbox_.Post(
            [this, key, call, status = std::move(status)] { OnGenerated(key, call, status); });
      });
}

void RunLoop::OnRollout(Key key, uint64_t call, v1::Rollout rollout) {
  auto work = generating_.find(key);
  if (work == generating_.end() || work->second.call != call) return;
  if (rollout.completion().finish_reason() == v1::FINISH_REASON_ABORT) return;
  absl::StatusOr<Prompt> prompt = PromptOf(key);
  if (!state_.Check(prompt.status())) return;
  rollout.mutable_prompt_token_ids()->Clear();
  rollout.mutable_prompt_token_ids()->Add(prompt->token_ids.begin(), prompt->token_ids.end());
  Keep(key, std::move(rollout), prompt->messages, prompt->answer);
}

void RunLoop::OnEpisode(Key key, uint64_t call, PlayedEpisode episode) {
  auto work = generating_.find(key);
  if (work == generating_.end() || work->second.call != call) return;
  absl::StatusOr<Prompt> prompt = PromptOf(key);
  if (!state_.Check(prompt.status())) return;
  Keep(key, std::move(episode.rollout), episode.prompt, prompt->answer);
}

void RunLoop::Keep(Key key, v1::Rollout rollout, const std::vector<v1::Message>& messages,
                   const std::string& answer) {
  state_.times.generate_end = state_.deps.clock.Now();
  if (key.first) {
    auto& samples = evaluation_->items().at(key.second).samples;
    if (rollout.sibling() >= samples.size()) return;
    Evaluation::Sample& sample = samples[rollout.sibling()];
    sample.given_up = rollout.reward().error();
    sample.rollout = std::move(rollout);
    sample.prompt = messages;
    return;
  }
  *rollout.mutable_group() = ledger_->Find(key.second)->id;
  v1::StoredRollout stored;
  *stored.mutable_rollout() = std::move(rollout);
  for (const v1::Message& message : messages) *stored.add_prompt() = message;
  stored.set_answer(answer);
  state_.Check(ledger_->StoreRollout(key.second, stored).status());
}

bool RunLoop::Finish(std::map<Key, Work>& under_way, Key key, uint64_t call,
                     const absl::Status& status) {
  auto work = under_way.find(key);
  if (work == under_way.end() || work->second.call != call) return false;
  state_.NoteSpan(&under_way == &generating_ ? "generate" : &under_way == &scoring_ ? "score" : "reference",
                  work->second.actor, absl::StrCat(key.first ? "held-out " : "group ", key.second), work->second.started);
  if (PooledActor* actor = pool_.Find(work->second.actor)) {
    --actor->view.in_flight;
    if (status.ok()) {
      actor->failures = 0;
    } else if (IsTransient(status) || absl::IsResourceExhausted(status)) {
      actor->view.not_before = state_.deps.clock.Now() + RetryPause(++actor->failures);
      // A refusal says that this side's view of its weights or epoch may be wrong.
      if (absl::IsFailedPrecondition(status) && actor->rewarder == nullptr)
        actor->view.loaded = false;
    }
  }
  under_way.erase(work);
  return true;
}

void RunLoop::Abandon(Key key) {
  if (auto work = generating_.find(key); work != generating_.end()) {
    PooledActor* generator = pool_.Find(work->second.actor);
    if (generator != nullptr && !plays()) {
      v1::AbortGenerateRequest request;
      *request.mutable_fence() = state_.FreshFence(generator->actor, "abort");
      *request.add_groups() = key.first ? evaluation_->GroupOf(key.second) : ledger_->Find(key.second)->id;
      // What it still writes would be ignored: this saves the time.
      generator->generator->Abort(request, kAbortDeadline, [](const auto&) {});
    }
  }
  for (auto* under_way : {&generating_, &scoring_, &referencing_}) {
    const auto work = under_way->find(key);
    if (work == under_way->end()) continue;
    const uint64_t call = work->second.call;
    episodes_.Forget(call);
    Finish(*under_way, key, call, absl::OkStatus());
  }
  retries_.erase(key);
  if (key.first) return;
  const auto of_group = [&](const auto& item) { return item.first.first == key.second; };
  std::erase_if(rewards_, of_group);
  std::erase_if(references_, of_group);
}

void RunLoop::DropStale(const Action& action) {
  for (const WaitingGroup& waiting : action.groups) {
    const Group& group = *ledger_->Find(waiting.order);
    Abandon({false, waiting.order});
    state_.Check(ledger_->Drop(
        waiting.order, absl::StrCat("when_stale: begun by version ", group.version.number(), ", and update ",
                                    state_.job.updates_done + 1, " takes version ",
                                    state_.job.updates_done - state_.plan.staleness, " or later")));
    ++state_.stale_groups;
  }
  state_.Commit();
}

void RunLoop::OnGenerated(Key key, uint64_t call, const absl::Status& status) {
  if (!Finish(generating_, key, call, status)) return;
  bool complete = key.first ? evaluation_->items().at(key.second).generated()
                            : ledger_->Find(key.second)->MissingSiblings().empty();
  bool greedy_next = state_.plan.greedy_sibling && !key.first && !complete &&
                     NextSiblings(*ledger_->Find(key.second), state_.plan).front() ==
                         state_.plan.group_size;
  if (complete || (greedy_next && status.ok())) {
    retries_.erase(key);
  } else if (status.ok()) {
    GroupFailed(key, "generate", absl::CancelledError("the rollout service ended some siblings"));
  } else {
    GroupFailed(key, "generate", status);
  }
}

void RunLoop::GroupFailed(Key key, const std::string& doing, const absl::Status& status) {
  Retry& retry = retries_[key];
  retry.not_before = state_.deps.clock.Now() + RetryPause(retry.failures);
  if (IsTransient(status) || absl::IsResourceExhausted(status)) return;  // for as long as it takes
  bool hopeless = absl::IsInvalidArgument(status);  // the service will say the same again
  ++retry.failures;
  if (!hopeless && retry.failures < static_cast<int>(state_.job.config.failure().max_attempts())) {
    return;
  }
  GiveUp(key, absl::StrCat(doing, ": ", std::string(status.message())));
}

void RunLoop::GiveUp(Key key, const std::string& reason) {
  retries_.erase(key);
  if (key.first) {
    for (Evaluation::Sample& sample : evaluation_->items().at(key.second).samples) {
      if (!sample.done()) sample.given_up = reason;
    }
  } else {
    state_.Check(ledger_->Drop(key.second, reason));
    const uint64_t pass = std::max(state_.deps.train->size(), state_.plan.groups_per_update);
    if (++given_up_in_row_ < pass) return;
    state_.Fail(
        absl::StrCat("every prompt of a whole pass over the data was dropped; the last: ", reason));
  }
}

}  // namespace rein::services

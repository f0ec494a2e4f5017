#include "services/controller/episodes.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"

#include "common/random/philox.h"

namespace rein::services {
namespace {

constexpr absl::Duration kTurnDeadline = absl::Hours(1);
constexpr absl::Duration kCloseDeadline = absl::Seconds(10);
// A call whose deadline is the episode's end may come back a little before it.
constexpr absl::Duration kClockSlack = absl::Milliseconds(50);
constexpr size_t kMaxNoteBytes = 512;
// What an environment may show at once.
constexpr size_t kMaxObservationBytes = 4 << 20;

// Cut between characters of UTF-8.
std::string Short(std::string text, size_t most) {
  if (text.size() <= most) return text;
  while (most > 0 && (static_cast<unsigned char>(text[most]) & 0xC0) == 0x80) --most;
  return text.substr(0, most);
}

uint64_t SeedOf(uint64_t seed, const v1::GroupId& group) {
  for (uint64_t name : {group.data_epoch(), group.prompt(), group.attempt()}) {
    seed = random::DeriveKey(seed, name);
  }
  return seed;
}

// Empty: the messages can be shown.
std::string MessageProblem(const google::protobuf::RepeatedPtrField<v1::Message>& messages) {
  size_t bytes = 0;
  for (const v1::Message& message : messages) {
    if (message.role() != "user" && message.role() != "tool" && message.role() != "system") {
      return absl::StrCat("a message of the role '", Short(message.role(), 40), "', want user, tool or system");
    }
    bytes += message.content().size();
  }
  if (bytes <= kMaxObservationBytes) return "";
  return absl::StrCat(bytes, " bytes in one observation, want at most ", kMaxObservationBytes);
}

void Append(const v1::Completion& turn, v1::Completion& to) {
  to.mutable_token_ids()->MergeFrom(turn.token_ids());
  to.mutable_behaviour_logprobs()->MergeFrom(turn.behaviour_logprobs());
  to.mutable_untempered_logprobs()->MergeFrom(turn.untempered_logprobs());
  for (const v1::VersionSpan& span : turn.versions()) {
    if (!to.versions().empty()) {
      v1::VersionSpan& last = *to.mutable_versions()->rbegin();
      const bool same = last.version().lineage() == span.version().lineage() &&
                        last.version().number() == span.version().number();
      if (same) {
        last.set_tokens(last.tokens() + span.tokens());
        continue;
      }
    }
    *to.add_versions() = span;
  }
  // A turn has those of all tokens before it too, which may have been computed again since.
  const std::string& choices = turn.expert_choices();
  if (choices.size() > to.expert_choices().size()) to.mutable_expert_choices()->append(choices, to.expert_choices().size());
  to.set_text(turn.text());
}

}  // namespace

std::string SampledMask(const v1::Rollout& rollout) {
  if (rollout.turns().empty()) {
    return std::string(static_cast<size_t>(rollout.completion().token_ids_size()), '\1');
  }
  std::string mask;
  for (const v1::Turn& turn : rollout.turns()) {
    mask.append(turn.tokens(), '\1');
    mask.append(turn.observation_tokens(), '\0');
  }
  return mask;
}

void FillRewardItem(const v1::Rollout& rollout, const std::vector<v1::Message>& prompt, v1::RewardItem* item) {
  for (const v1::Message& message : prompt) *item->add_prompt() = message;
  *item->mutable_completion() = rollout.completion();
  item->mutable_completion()->clear_expert_choices();
  if (rollout.turns().empty()) return;
  double reward = 0;
  for (int i = 0; i < rollout.turns_size(); ++i) {
    const v1::Turn& turn = rollout.turns(i);
    reward += turn.reward();
    if (i + 1 == rollout.turns_size()) break;
    v1::Message* said = item->add_prompt();
    said->set_role("assistant");
    said->set_content(turn.text());
    item->mutable_prompt()->MergeFrom(turn.observation());
  }
  item->set_environment_reward(reward);
  const v1::Turn& last = *rollout.turns().rbegin();
  const auto tokens = static_cast<int>(last.tokens());
  v1::Completion& completion = *item->mutable_completion();
  auto keep_last = [tokens](auto& list) {
    if (list.size() > tokens) list.erase(list.begin(), list.end() - tokens);
  };
  keep_last(*completion.mutable_token_ids());
  keep_last(*completion.mutable_behaviour_logprobs());
  keep_last(*completion.mutable_untempered_logprobs());
  completion.clear_versions();
  completion.set_text(last.text());
}

void Episodes::Play(uint64_t call, PooledActor& generator, const v1::GenerateRequest& request,
                    PromptSource& source, Prompt prompt, OnEpisode on_episode, Done done) {
  Playing& playing = playing_[call];
  playing = {.generator = &generator,
             .request = request,
             .source = &source,
             .prompt = std::move(prompt),
             .on_episode = std::move(on_episode),
             .done = std::move(done)};
  for (uint32_t sibling : request.siblings()) playing.episodes.push_back({.sibling = sibling});
  const size_t episodes = playing.episodes.size();
  for (size_t i = 0; i < episodes && playing_.count(call) > 0; ++i) Begin({call, i});
}

void Episodes::Forget(uint64_t call) {
  auto found = playing_.find(call);
  if (found == playing_.end()) return;
  for (const Episode& episode : found->second.episodes) {
    if (!episode.over) CloseEnvironment(episode);
  }
  playing_.erase(found);
}

Episodes::Episode* Episodes::Waiting(Place place, uint64_t ticket) {
  auto found = playing_.find(place.first);
  if (found == playing_.end()) return nullptr;
  Episode& episode = found->second.episodes.at(place.second);
  return episode.over || episode.ticket != ticket ? nullptr : &episode;
}

bool Episodes::TimeIsUp(const Episode& episode) const {
  return state_.deps.clock.Now() + kClockSlack >= EndOf(episode);
}

EnvironmentClient* Episodes::Environment() {
  std::string address = config().remote().address();
  if (config().has_tools()) {
    std::vector<std::string> addresses;
    for (const ActorView& view : state_.pool.Views("reward")) {
      addresses.push_back(state_.pool.Find(view.name)->actor.address());
    }
    if (addresses.empty()) return nullptr;
    address = addresses[next_rewarder_++ % addresses.size()];
  }
  std::unique_ptr<EnvironmentClient>& client = environments_[address];
  if (client == nullptr) client = state_.deps.connector.ConnectEnvironment(address);
  return client.get();
}

template <typename Reply>
void Episodes::Call(Place place,
                    std::function<void(EnvironmentClient&, absl::Duration, rpc::Done<Reply>)> start,
                    void (Episodes::*on_reply)(Place, absl::StatusOr<Reply>)) {
  const uint64_t ticket = state_.next_call++;
  playing_.at(place.first).episodes.at(place.second).ticket = ticket;
  waiting_calls_.push_back([this, place, ticket, start = std::move(start), on_reply] {
    Episode* episode = Waiting(place, ticket);
    if (episode == nullptr) return;
    const absl::Duration left = EndOf(*episode) - state_.deps.clock.Now();
    if (left <= absl::ZeroDuration()) return End(place, v1::FINISH_REASON_TIMEOUT);
    EnvironmentClient* environment = Environment();
    if (environment == nullptr) {
      return Missing(place, absl::UnavailableError("environment.tools: no reward service is there to run them"));
    }
    ++calls_;
    start(*environment, std::min(left, absl::Seconds(config().step_timeout_seconds())),
          [this, place, ticket, on_reply](absl::StatusOr<Reply> reply) {
            state_.mailbox.Post([this, place, ticket, on_reply, reply = std::move(reply)]() mutable {
              --calls_;
              if (Waiting(place, ticket) != nullptr) (this->*on_reply)(place, std::move(reply));
              StartCalls();
            });
          });
  });
  StartCalls();
}

void Episodes::StartCalls() {
  while (!waiting_calls_.empty() && calls_ < config().concurrency()) {
    const std::function<void()> start = std::move(waiting_calls_.front());
    waiting_calls_.pop_front();
    start();
  }
}

void Episodes::Begin(Place place) {
  Playing& playing = playing_.at(place.first);
  Episode& episode = playing.episodes.at(place.second);
  const v1::GenerateRequest& request = playing.request;
  episode.id = absl::StrCat(request.fence().request_id(), "/", episode.sibling, "/", state_.next_call++);
  episode.begun = false;
  episode.started = state_.deps.clock.Now();
  episode.messages = playing.prompt.messages;
  episode.rollout = v1::Rollout();
  *episode.rollout.mutable_group() = request.group();
  episode.rollout.set_sibling(episode.sibling);
  v1::EnvironmentResetRequest reset;
  reset.set_episode(episode.id);
  *reset.mutable_settings() = config();
  for (const v1::Message& message : playing.prompt.messages) *reset.add_prompt() = message;
  *reset.mutable_columns() = playing.prompt.columns;
  reset.set_answer(playing.prompt.answer);
  reset.set_seed(SeedOf(request.sampling().seed(), request.group()));
  reset.set_sibling(episode.sibling);
  Call<v1::EnvironmentResetReply>(
      place,
      [reset](EnvironmentClient& environment, absl::Duration deadline, auto done) {
        environment.Reset(reset, deadline, std::move(done));
      },
      &Episodes::OnReset);
}

void Episodes::OnReset(Place place, absl::StatusOr<v1::EnvironmentResetReply> reply) {
  Playing& playing = playing_.at(place.first);
  Episode& episode = playing.episodes.at(place.second);
  if (absl::IsInvalidArgument(reply.status())) {
    return state_.Fail(absl::StrCat("environment: ", std::string(reply.status().message())));
  }
  if (!reply.ok()) {
    if (TimeIsUp(episode)) return End(place, v1::FINISH_REASON_TIMEOUT);
    // The tools run in our own services: one that left comes back.
    if (config().has_tools() && IsTransient(reply.status())) return Missing(place, reply.status());
    return Failed(place, absl::StrCat("reset: ", std::string(reply.status().message())));
  }
  episode.begun = true;
  if (std::string problem = MessageProblem(reply->messages()); !problem.empty()) {
    return Failed(place, absl::StrCat("reset: the environment gave ", problem));
  }
  episode.tools.assign(reply->tools().begin(), reply->tools().end());
  episode.messages.insert(episode.messages.end(), reply->messages().begin(), reply->messages().end());
  episode.prompt = playing.prompt.token_ids;
  if (!reply->messages().empty() || !episode.tools.empty()) {
    absl::StatusOr<std::vector<uint32_t>> ids = playing.source->EncodeMessages(episode.messages, episode.tools);
    if (!ids.ok()) return Failed(place, absl::StrCat("reset: ", std::string(ids.status().message())));
    episode.prompt = *std::move(ids);
  }
  episode.rollout.mutable_prompt_token_ids()->Add(episode.prompt.begin(), episode.prompt.end());
  const uint64_t context = playing.source->context_tokens();
  if (context > 0 && episode.prompt.size() >= context) {
    return Failed(place, absl::StrCat("reset: the prompt has ", episode.prompt.size(),
                                      " tokens, and the context ", context));
  }
  NextTurn(place);
}

uint64_t Episodes::Left(const Playing& playing, const Episode& episode) const {
  const auto used = static_cast<uint64_t>(episode.rollout.completion().token_ids_size());
  uint64_t left = UINT32_MAX;
  if (config().has_max_tokens()) left = config().max_tokens() - std::min<uint64_t>(used, config().max_tokens());
  if (const uint64_t context = playing.source->context_tokens(); context > 0) {
    left = std::min(left, context - std::min(context, used + episode.prompt.size()));
  }
  return left;
}

void Episodes::NextTurn(Place place) {
  Playing& playing = playing_.at(place.first);
  Episode& episode = playing.episodes.at(place.second);
  const absl::Duration time_left = EndOf(episode) - state_.deps.clock.Now();
  if (time_left <= absl::ZeroDuration()) return End(place, v1::FINISH_REASON_TIMEOUT);
  const auto turn = static_cast<uint32_t>(episode.rollout.turns_size());
  v1::GenerateRequest request = playing.request;
  *request.mutable_fence() = state_.FreshFence(playing.generator->actor, absl::StrCat(episode.id, "/", turn));
  request.mutable_prompt_token_ids()->Clear();
  request.mutable_prompt_token_ids()->Add(episode.prompt.begin(), episode.prompt.end());
  request.mutable_prompt_token_ids()->MergeFrom(episode.rollout.completion().token_ids());
  request.clear_siblings();
  request.add_siblings(episode.sibling);
  request.set_turn(turn);
  const uint64_t left = Left(playing, episode);
  episode.cut_by_total = left <= request.sampling().max_tokens();
  request.mutable_sampling()->set_max_tokens(
      static_cast<uint32_t>(std::min<uint64_t>(left, request.sampling().max_tokens())));
  episode.turn.reset();
  const uint64_t ticket = episode.ticket = state_.next_call++;
  playing.generator->generator->Generate(
      request, std::min(time_left, kTurnDeadline),
      [this, place, ticket](v1::Rollout rollout) {
        state_.mailbox.Post([this, place, ticket, rollout = std::move(rollout)]() mutable {
          Episode* waiting = Waiting(place, ticket);
          if (waiting != nullptr) waiting->turn = std::move(*rollout.mutable_completion());
        });
      },
      [this, place, ticket](absl::Status status) {
        state_.mailbox.Post([this, place, ticket, status = std::move(status)] {
          if (Waiting(place, ticket) != nullptr) OnTurn(place, status);
        });
      });
}

void Episodes::OnTurn(Place place, const absl::Status& status) {
  Episode& episode = playing_.at(place.first).episodes.at(place.second);
  if (!status.ok()) {
    if (TimeIsUp(episode)) return End(place, v1::FINISH_REASON_TIMEOUT);
    return Missing(place, status);
  }
  const bool came = episode.turn.has_value() && episode.turn->token_ids_size() > 0;
  if (!came || episode.turn->finish_reason() == v1::FINISH_REASON_ABORT) {
    return Missing(place, absl::CancelledError("the rollout service ended some siblings"));
  }
  TakeTurn(episode);
  AskStep(place);
}

void Episodes::TakeTurn(Episode& episode) {
  v1::Turn* turn = episode.rollout.add_turns();
  turn->set_text(episode.turn->text());
  turn->set_tokens(static_cast<uint32_t>(episode.turn->token_ids_size()));
  Append(*episode.turn, *episode.rollout.mutable_completion());
}

void Episodes::AskStep(Place place) {
  const Episode& episode = playing_.at(place.first).episodes.at(place.second);
  v1::EnvironmentStepRequest step;
  step.set_episode(episode.id);
  *step.mutable_settings() = config();
  step.set_turn(static_cast<uint32_t>(episode.rollout.turns_size() - 1));
  step.set_text(episode.turn->text());
  step.set_truncated(episode.turn->finish_reason() == v1::FINISH_REASON_LENGTH);
  Call<v1::EnvironmentStepReply>(
      place,
      [step](EnvironmentClient& environment, absl::Duration deadline, auto done) {
        environment.Step(step, deadline, std::move(done));
      },
      &Episodes::OnStep);
}

void Episodes::OnStep(Place place, absl::StatusOr<v1::EnvironmentStepReply> reply) {
  Playing& playing = playing_.at(place.first);
  Episode& episode = playing.episodes.at(place.second);
  const std::string step = absl::StrCat("step ", episode.rollout.turns_size() - 1, ": ");
  if (!reply.ok()) {
    if (TimeIsUp(episode)) return End(place, v1::FINISH_REASON_TIMEOUT);
    if (config().has_tools() && IsTransient(reply.status()) && !absl::IsDeadlineExceeded(reply.status()) &&
        !absl::IsFailedPrecondition(reply.status())) {
      return Missing(place, reply.status());
    }
    return Failed(place, absl::StrCat(step, std::string(reply.status().message())));
  }
  v1::Turn& turn = *episode.rollout.mutable_turns()->rbegin();
  if (!std::isfinite(reply->reward())) {
    return Failed(place, absl::StrCat(step, "the environment gave the reward ", reply->reward(), ", want a finite number"));
  }
  turn.set_reward(reply->reward());
  turn.set_note(Short(reply->note(), kMaxNoteBytes));
  if (reply->done()) {
    episode.begun = false;  // it ended itself
    return End(place, v1::FINISH_REASON_DONE);
  }
  if (episode.turn->finish_reason() == v1::FINISH_REASON_LENGTH) {
    return End(place, episode.cut_by_total ? v1::FINISH_REASON_MAX_TOKENS : v1::FINISH_REASON_LENGTH);
  }
  if (reply->messages().empty()) {
    return Failed(place, absl::StrCat(step, "the environment gave no messages, and the episode is not done"));
  }
  if (std::string problem = MessageProblem(reply->messages()); !problem.empty()) {
    return Failed(place, absl::StrCat(step, "the environment gave ", problem));
  }
  if (static_cast<uint32_t>(episode.rollout.turns_size()) >= config().max_turns()) {
    return End(place, v1::FINISH_REASON_MAX_TURNS);
  }
  absl::StatusOr<bool> room = Observe(playing, episode, *reply);
  if (!room.ok()) return Failed(place, absl::StrCat(step, std::string(room.status().message())));
  return *room ? NextTurn(place) : End(place, v1::FINISH_REASON_MAX_TOKENS);
}

absl::StatusOr<bool> Episodes::Observe(Playing& playing, Episode& episode,
                                       const v1::EnvironmentStepReply& reply) {
  const std::vector<v1::Message> next(reply.messages().begin(), reply.messages().end());
  const uint32_t last = *episode.turn->token_ids().rbegin();
  absl::StatusOr<std::vector<uint32_t>> ids =
      playing.source->EncodeObservation(episode.messages, next, last, episode.tools);
  if (!ids.ok()) return ids.status();
  if (ids->empty()) return absl::InvalidArgumentError("what the environment showed has no token");
  if (ids->size() + 1 > Left(playing, episode)) return false;
  v1::Turn& turn = *episode.rollout.mutable_turns()->rbegin();
  *turn.mutable_observation() = reply.messages();
  turn.set_observation_tokens(static_cast<uint32_t>(ids->size()));
  episode.rollout.mutable_completion()->mutable_token_ids()->Add(ids->begin(), ids->end());
  return true;
}

void Episodes::End(Place place, v1::FinishReason reason) {
  Episode& episode = playing_.at(place.first).episodes.at(place.second);
  if (episode.rollout.turns().empty()) {
    return Failed(place, absl::StrCat("no turn came to an end within environment.timeout_seconds ",
                                      config().timeout_seconds()));
  }
  // What was shown after the last turn answers nothing.
  v1::Turn& last = *episode.rollout.mutable_turns()->rbegin();
  auto& ids = *episode.rollout.mutable_completion()->mutable_token_ids();
  ids.Truncate(ids.size() - static_cast<int>(last.observation_tokens()));
  last.clear_observation();
  last.clear_observation_tokens();
  episode.rollout.mutable_completion()->set_finish_reason(reason);
  CloseEnvironment(episode);
  Over(place, /*played=*/true);
}

void Episodes::Failed(Place place, const std::string& why) {
  Episode& episode = playing_.at(place.first).episodes.at(place.second);
  CloseEnvironment(episode);
  if (++episode.failures < static_cast<int>(state_.job.config.failure().max_attempts())) return Begin(place);
  episode.rollout.mutable_completion()->set_finish_reason(v1::FINISH_REASON_ABORT);
  episode.rollout.mutable_reward()->set_error(absl::StrCat("environment: ", Short(why, 2 * kMaxNoteBytes)));
  Over(place, /*played=*/true);
}

void Episodes::Missing(Place place, const absl::Status& status) {
  Playing& playing = playing_.at(place.first);
  CloseEnvironment(playing.episodes.at(place.second));
  playing.status.Update(status);
  Over(place, /*played=*/false);
}

void Episodes::Over(Place place, bool played) {
  Playing& playing = playing_.at(place.first);
  Episode& episode = playing.episodes.at(place.second);
  episode.over = true;
  if (played) {
    playing.on_episode({.rollout = std::move(episode.rollout), .prompt = std::move(episode.messages)});
  }
  const bool all = std::all_of(playing.episodes.begin(), playing.episodes.end(),
                               [](const Episode& one) { return one.over; });
  if (!all) return;
  const Done done = std::move(playing.done);
  const absl::Status status = playing.status;
  playing_.erase(place.first);
  done(status);
}

void Episodes::CloseEnvironment(const Episode& episode) {
  if (!episode.begun || !config().has_remote()) return;
  v1::EnvironmentCloseRequest close;
  close.set_episode(episode.id);
  if (EnvironmentClient* environment = Environment()) environment->Close(close, kCloseDeadline);
}

}  // namespace rein::services

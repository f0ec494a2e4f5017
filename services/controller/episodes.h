// Episodes plays completions of several turns: it asks a generator for a turn, an environment for what follows it, and so
// on until the episode ends. For the run loop it looks like one long Generate call.
//
//   episodes.Play(call, generator, request, prompts, prompt, on_episode, done);
//
// Token in, token out: what the policy wrote is never tokenised again. The next turn's prompt is the tokens of all
// before it with the observation's behind them, encoded once as what the chat template adds after a turn. The draws of
// turn t are keyed by t. Observations are no targets and have no log-prob.
//
// An episode ends with the first of: the environment is done, max_turns, max_tokens or the context, a turn that was cut
// by its own limit, timeout_seconds. What the environment does wrong (no answer in time, an error, an answer that makes
// no sense) begins the episode again from its start; after failure.max_attempts tries it ends with that reason in
// reward.error, and is never trained on. An episode whose generator is lost is missing, and asked for again.
//
// Belongs to the controller's thread; callbacks come from Mailbox::Drain().

#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"

#include "rein/v1/reward.pb.h"
#include "services/controller/prompt_source.h"
#include "services/controller/run_state.h"
#include "services/environment/environment_client.h"

namespace rein::services {

// An episode that is over.
struct PlayedEpisode {
  v1::Rollout rollout;              // with prompt_token_ids and turns; reward.error where it failed
  std::vector<v1::Message> prompt;  // what the environment put behind the prompt included
};

class Episodes {
 public:
  using OnEpisode = std::function<void(PlayedEpisode)>;
  using Done = std::function<void(absl::Status)>;

  explicit Episodes(RunState& state) : state_(state) {}

  // `request` is that of a completion of one turn; each of its siblings is an episode. `generator` must stay until
  // `done` or Forget(call). A status that is not OK: some siblings are missing.
  void Play(uint64_t call, PooledActor& generator, const v1::GenerateRequest& request, PromptSource& source,
            Prompt prompt, OnEpisode on_episode, Done done);
  // Nobody waits for a call any more; its callbacks are not called.
  void Forget(uint64_t call);

 private:
  struct Episode {
    uint32_t sibling = 0;
    int failures = 0;
    std::string id;        // of this try
    bool begun = false;    // the environment knows it
    bool over = false;
    uint64_t ticket = 0;   // of the answer that is waited for
    absl::Time started;
    std::vector<v1::Message> messages;  // before the first turn
    std::vector<std::string> tools;
    std::vector<uint32_t> prompt;
    v1::Rollout rollout;                // so far
    std::optional<v1::Completion> turn;  // that has just come
    bool cut_by_total = false;  // the turn's limit was what the episode had left
  };
  struct Playing {
    PooledActor* generator = nullptr;
    v1::GenerateRequest request;
    PromptSource* source = nullptr;
    Prompt prompt;
    OnEpisode on_episode;
    Done done;
    std::vector<Episode> episodes;
    absl::Status status;  // why siblings are missing
  };
  using Place = std::pair<uint64_t, size_t>;  // call, episode

  const v1::EnvironmentConfig& config() const { return state_.job.config.environment(); }
  // Null when nobody waits for the answer with this ticket.
  Episode* Waiting(Place place, uint64_t ticket);
  absl::Time EndOf(const Episode& episode) const {
    return episode.started + absl::Seconds(config().timeout_seconds());
  }
  bool TimeIsUp(const Episode& episode) const;
  // Where the environment is; null when no reward service is there for the tools.
  EnvironmentClient* Environment();

  void Begin(Place place);
  void OnReset(Place place, absl::StatusOr<v1::EnvironmentResetReply> reply);
  void NextTurn(Place place);
  void OnTurn(Place place, const absl::Status& status);
  void TakeTurn(Episode& episode);
  void AskStep(Place place);
  void OnStep(Place place, absl::StatusOr<v1::EnvironmentStepReply> reply);
  // Appends what follows the turn; false when there is no room for it.
  absl::StatusOr<bool> Observe(Playing& playing, Episode& episode, const v1::EnvironmentStepReply& reply);
  // Tokens that the episode may still have.
  uint64_t Left(const Playing& playing, const Episode& episode) const;

  // The episode ends well, with the turns that it has.
  void End(Place place, v1::FinishReason reason);
  // The environment failed: from the start, or for good.
  void Failed(Place place, const std::string& why);
  // The sibling is missing.
  void Missing(Place place, const absl::Status& status);
  void Over(Place place, bool played);
  void CloseEnvironment(const Episode& episode);

  // Calls of the environment, at most config().concurrency at a time. `start` is given its deadline and what takes the
  // answer.
  template <typename Reply>
  void Call(Place place, std::function<void(EnvironmentClient&, absl::Duration, rpc::Done<Reply>)> start,
            void (Episodes::*on_reply)(Place, absl::StatusOr<Reply>));
  void StartCalls();

  RunState& state_;
  std::map<uint64_t, Playing> playing_;
  std::deque<std::function<void()>> waiting_calls_;
  uint32_t calls_ = 0;  // under way
  size_t next_rewarder_ = 0;
  std::map<std::string, std::unique_ptr<EnvironmentClient>> environments_;  // by address; last: their calls end first
};

// Which tokens of a completion the policy wrote: 1, else 0.
std::string SampledMask(const v1::Rollout& rollout);

// What rules judge: of an episode the last turn, with all before it as the prompt, and what the environment gave.
void FillRewardItem(const v1::Rollout& rollout, const std::vector<v1::Message>& prompt, v1::RewardItem* item);

}  // namespace rein::services

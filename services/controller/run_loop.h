// RunLoop drives one job from its start to its end: it asks NextAction what to do, starts it, and
// takes in what comes back.
//
//   REIN_ASSIGN_OR_RETURN(auto run, RunLoop::Begin(dependencies, job));
//   while (!run->outcome().has_value()) {
//     absl::Time until = run->Step();
//     ... wait until then, or until dependencies.wake() was called ...
//   }
//
// Step() never blocks on a service. A loop may be destroyed at any point: the next one goes on from
// the store. Several loops may take turns on one store, each with its own job and its own group of actors: a loop that
// goes on has committed all that it wrote when a call returns, and one that has an outcome is ended (Commit() and, where
// that fails, a rollback of the store) before another has its turn. Belongs to the controller's thread.

#pragma once

#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"

#include "common/data/data_order.h"
#include "services/controller/episodes.h"
#include "services/controller/evaluation.h"
#include "services/controller/result_file.h"
#include "services/controller/run_state.h"
#include "services/controller/trainer_work.h"

namespace rein::services {

class RunLoop {
 public:
  // `job` must outlive the loop; its state is the caller's business.
  static absl::StatusOr<std::unique_ptr<RunLoop>> Begin(RunDependencies deps, JobRecord& job);
  ~RunLoop();

  // Takes in what has come and starts what can be started. Returns when to call again at the
  // latest.
  absl::Time Step();

  // Lets the running Update end, writes a checkpoint, and ends with PAUSED; also when another loop goes
  // on with the job before that.
  void Pause();

  // Makes what was written before the outcome durable; not OK: it is not, and has to be rolled back.
  absl::Status Commit() {
    state_.Commit();
    return state_.commit_error;
  }

  const std::optional<Outcome>& outcome() const { return state_.outcome; }
  const Ledger& ledger() const { return *ledger_; }
  Ledger& ledger() { return *ledger_; }
  // What a person should know while nothing moves; empty when all is well.
  const std::string& waits_for() const { return waits_for_; }
  // The trainer holds the job's model.
  bool trainer_loaded() const { return trainer_.View().loaded; }

 private:
  // A group of the ledger, or a held-out prompt.
  using Key = std::pair<bool, uint64_t>;  // held out, order

  struct Retry {
    absl::Time not_before = absl::InfinitePast();
    int failures = 0;
  };

  // How the completions of a prompt did when it was last tried.
  struct PassRate {
    double rate = 0;
    uint64_t data_epoch = 0;
  };

  // What is under way for one group.
  struct Work {
    std::string actor;
    uint64_t call = 0;
    absl::Time started;
  };

  RunLoop(RunDependencies deps, JobRecord& job, std::unique_ptr<Ledger> ledger);

  void RefreshActors();
  void CompareBuilds();
  Snapshot TakeSnapshot();
  void AddGroups(Snapshot& snapshot) const;
  void AddHeldOut(Snapshot& snapshot) const;
  void Start(const Action& action);
  bool PauseNow();

  void LoadGenerator(const std::string& name);
  void LoadReference(const std::string& name);
  template <typename Reply>
  void OnLoaded(const std::string& name, uint64_t epoch, const absl::StatusOr<Reply>& reply);
  void OnStatus(const std::string& name, uint64_t epoch,
                absl::StatusOr<v1::ActorStatusReply> reply);

  void BeginEvaluation();
  void Validate();
  void EndEvaluation();
  void RecordEval(const v1::EvalResult& result);
  // Makes this Update the last one when the held-out loss does not fall any more.
  void StopEarly();
  void ForgetEvaluation();

  void Issue(uint64_t count);
  absl::Status IssueNext();
  // A text that is scored stands in the ledger as a completion that is there already.
  absl::Status StoreText(uint64_t order, uint64_t line);
  // Why the curriculum skips a prompt now; empty: it does not.
  std::string TooEasyOrHard(uint64_t prompt) const;
  void NotePassRate(const Group& group);

  void Generate(const Action& action);
  void StartGenerate(PooledActor& generator, Key key);
  void OnRollout(Key key, uint64_t call, v1::Rollout rollout);
  void OnEpisode(Key key, uint64_t call, PlayedEpisode episode);
  void Keep(Key key, v1::Rollout rollout, const std::vector<v1::Message>& messages, const std::string& answer);
  void OnGenerated(Key key, uint64_t call, const absl::Status& status);

  void Score(const Action& action);
  void OnScored(Key key, uint64_t call, absl::StatusOr<v1::ScoreRewardsReply> reply);
  void TakeRewards(Key key, const v1::ScoreRewardsReply& reply);
  std::vector<std::vector<uint64_t>> ReferenceCalls(const Action& action) const;
  void ScoreReference(const Action& action);
  // One call for the completions of these groups.
  void AskReference(const std::string& actor, const std::vector<uint64_t>& orders);
  void OnReference(uint64_t order, uint64_t call, absl::StatusOr<v1::ScoreTokensReply> reply);
  void CloseIfScored(uint64_t order);
  void CloseFinished();

  void Collect(uint64_t count);
  // Some more lines of the job's results.
  void WriteResults();

  // Ends all work for a group, on its actors too.
  void Abandon(Key key);
  bool IsStale(const Group& group) const;
  void DropStale(const Action& action);
  // Ends the work of a group, or of all groups on an actor that left.
  bool Finish(std::map<Key, Work>& under_way, Key key, uint64_t call, const absl::Status& status);
  void Forget(std::map<Key, Work>& under_way, const std::string& actor);
  // Tries again later, or gives the group up.
  void GroupFailed(Key key, const std::string& doing, const absl::Status& status);
  void GiveUp(Key key, const std::string& reason);
  absl::StatusOr<Prompt> PromptOf(Key key);
  PromptSource& SourceOf(Key key);
  bool plays() const { return state_.job.config.has_environment(); }
  // Whether a reference has said what it has to say of the group, or has nothing to say.
  bool Referenced(const Group& group) const;
  std::vector<uint32_t> SiblingsToScore(Key key) const;
  uint64_t OldestVersion(uint64_t position) const;

  Mailbox mailbox_;
  std::unique_ptr<Ledger> ledger_;
  ActorPool pool_;
  RunState state_;
  data::DataOrder order_;
  std::optional<Evaluation> evaluation_;
  std::map<uint64_t, v1::EvalResult> evaluated_;  // by update
  std::map<uint64_t, PassRate> pass_rates_;       // by prompt, for a curriculum
  std::unique_ptr<ResultFile> results_;           // while they are written
  uint64_t given_up_in_row_ = 0;  // groups, since one was scored
  uint64_t kept_epoch_;  // data epoch of the last prompt that was not dropped when it was issued
  std::string waits_for_;
  std::string build_difference_;  // as it was last told

  std::map<Key, Work> generating_;
  std::map<Key, Work> scoring_;
  std::map<Key, Work> referencing_;
  std::map<Key, Retry> retries_;
  // Rewards that wait for the reference's log-probs, and the other way round, by (order, sibling).
  std::map<std::pair<uint64_t, uint32_t>, v1::RewardResult> rewards_;
  std::map<std::pair<uint64_t, uint32_t>, std::vector<float>> references_;
  Episodes episodes_;
  TrainerWork trainer_;  // last: it uses the members above
};

// What the config asks for; `prompts` is the size of the training data.
Plan PlanOf(const v1::JobConfig& config, uint64_t prompts);

}  // namespace rein::services

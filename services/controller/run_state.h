// RunState is what the parts of one job's run share: its record, ledger, actors and outcome.
//
// Belongs to the controller's thread.

#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"

#include "common/config/name.h"
#include "common/sync/clock.h"
#include "rein/v1/controller.pb.h"
#include "services/controller/actor_pool.h"
#include "services/controller/actor_registry.h"
#include "services/controller/decision.h"
#include "services/controller/evaluation.h"
#include "services/controller/ledger.h"
#include "services/controller/mailbox.h"
#include "services/controller/prompt_source.h"
#include "services/controller/store.h"

namespace rein::services {

// Where a run leaves what people read: files and gauges. Nothing is read back from it.
class RunRecorder {
 public:
  virtual ~RunRecorder() = default;
  virtual void OnUpdate(const JobRecord& job, const v1::UpdateRecord& record) = 0;
  virtual void OnEval(const JobRecord& job, const v1::EvalResult& result) = 0;
  // A checkpoint that the store has forgotten.
  virtual void RemoveCheckpoint(const std::string& path) = 0;
};

// All of it must outlive the run.
struct RunDependencies {
  Store& store;
  ActorRegistry& registry;
  ActorConnector& connector;
  const sync::Clock& clock;
  RunRecorder& recorder;
  std::string group = config::kDefaultGroup;  // of the actors that it may use
  PromptSource* train = nullptr;      // what the job goes through; null for one that only evaluates
  std::vector<HeldOutData> held_out;  // none for a job without; the first one's answers are validated
  std::function<void()> wake;        // an answer came; called from any thread
};

// How a run ended.
struct Outcome {
  v1::JobState state = v1::JOB_STATE_FAILED;
  std::string message;
};

// Seconds of the work since the last Update, for its record.
struct WorkTimes {
  absl::Time last_update;
  absl::Time generate_begin = absl::InfiniteFuture();
  absl::Time generate_end = absl::InfinitePast();
  absl::Time score_begin = absl::InfiniteFuture();
  absl::Time score_end = absl::InfinitePast();
  absl::Duration sync;
  std::vector<v1::WorkSpan> spans;
};

struct RunState {
  RunDependencies deps;
  JobRecord& job;
  Ledger& ledger;
  ActorPool& pool;
  Mailbox& mailbox;
  Plan plan;
  WorkTimes times;
  std::vector<v1::Checkpoint> checkpoints;  // oldest first
  bool exported = false;
  uint64_t stale_groups = 0;  // given up since the last Update
  uint64_t next_call = 1;
  std::optional<Outcome> outcome;
  absl::Status commit_error;  // not OK: what is in memory is ahead of the store, and nothing that builds on it may be kept

  // Makes all writes durable, and the rollouts that they speak of before them; a failure ends the run, and nothing is
  // committed after it. Who ends the run rolls back.
  bool Commit();
  // Ends the run with FAILED unless `status` is OK; returns whether it is.
  bool Check(const absl::Status& status);
  void Fail(const std::string& message);

  void SaveJob() { Check(deps.store.UpdateJob(job)); }
  void Emit(v1::JobEvent event);
  void Tell(const std::string& message);
  // A call that ends now, for the next Update's record.
  void NoteSpan(const std::string& work, const std::string& actor, const std::string& about, absl::Time begin);

  Version Current() const { return {.lineage = job.lineage, .number = job.updates_done}; }
  // A request id that carries the same text when the same effect is asked for again.
  v1::Fence FenceOf(const v1::Actor& actor, const std::string& effect) const;
  // A request id that is never used again.
  v1::Fence FreshFence(const v1::Actor& actor, const std::string& effect);
};

v1::PolicyVersion ToProto(const Version& version);
Version FromProto(const v1::PolicyVersion& version);

// Grows with failures in a row, up to ten seconds.
absl::Duration RetryPause(int failures);

// True when an actor has refused so often that it will not change its mind: not by its fence, and
// not for being away.
bool IsFinalRefusal(const absl::Status& status, int failures);

// True for answers after which the same call may succeed: the peer is away, busy or was fenced.
bool IsTransient(const absl::Status& status);

}  // namespace rein::services

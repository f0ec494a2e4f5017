// Controller owns the jobs: it stores them, runs one at a time on each group of actors (placement.h says which and where),
// and answers for them. Everything happens on one thread (see ControllerThread); RPCs come in through its mailbox.
//
// Runs and calls share one store, and so one transaction. Whatever has the thread, a step of a run, its end or a call,
// finds no writes open and leaves none: it has committed its own, or rolled them back. So no commit makes half of
// another's work durable, or speaks of rollouts that their own run has not synced yet, and no rollback takes back what
// another believes stored.

#pragma once

#include <atomic>
#include <functional>
#include <future>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "common/sync/clock.h"
#include "rein/v1/controller.pb.h"
#include "services/controller/actor_registry.h"
#include "services/controller/job_recorder.h"
#include "services/controller/placement.h"
#include "services/controller/retention.h"
#include "services/controller/run_loop.h"
#include "services/controller/store.h"

namespace rein::services {

struct ControllerOptions {
  std::string folder;   // of the store, rollouts and default outputs
  std::string outputs;  // of default outputs; empty: folder/jobs
  std::optional<PostgresOptions> postgres = std::nullopt;  // of the store; none: SQLite in `folder`
  absl::Duration lease = absl::Seconds(10);
};

class Controller {
 public:
  // Goes on with what the store says was running. All references must outlive the controller;
  // `wake` is called from any thread when Step() should run.
  static absl::StatusOr<std::unique_ptr<Controller>> Create(ControllerOptions options,
                                                            const sync::Clock& clock,
                                                            ActorConnector& connector,
                                                            JobRecorder& recorder,
                                                            std::function<void()> wake);
  ~Controller();

  // Does what can be done now; returns when to call again at the latest.
  absl::Time Step();

  ActorRegistry& registry() { return *registry_; }
  // Of all groups, by role and name, with the job that each one's group runs where `shows` it (null: all do).
  std::vector<v1::Actor> ListActors(const std::function<bool(const JobRecord&)>& shows = nullptr) const;

  // Replaces model.job, and that of reward models, by the folder that the job left; INVALID_ARGUMENT when it left
  // none.
  absl::StatusOr<v1::JobConfig> ResolveModel(v1::JobConfig config);
  // The actors that work, or may have worked, for a job: of its group; of all while it has none, or is not known.
  std::vector<v1::Actor> ActorsOf(const std::string& job) const;
  // `owner`: the tenant that the job belongs to; may be empty.
  absl::StatusOr<v1::Job> Submit(const std::string& request_id, const v1::JobConfig& config,
                                 const std::string& owner = "");
  // `name` may be a prefix that one job has. NOT_FOUND names the nearest.
  absl::StatusOr<v1::Job> GetJob(const std::string& name);
  std::vector<v1::Job> ListJobs(const std::function<bool(const JobRecord&)>& wanted = nullptr);
  struct NewEvents {
    std::string job;  // its whole name
    v1::JobState state;
    std::vector<v1::JobEvent> events;
  };
  absl::StatusOr<NewEvents> EventsAfter(const std::string& name, uint64_t after);
  // Grows with each event of any job.
  uint64_t events_appended() const { return store_->events_appended(); }
  absl::StatusOr<v1::Job> Cancel(const std::string& name);
  absl::StatusOr<v1::Job> Pause(const std::string& name);
  absl::StatusOr<v1::Job> Resume(const std::string& name,
                                 const std::vector<std::string>& overrides);
  // FAILED_PRECONDITION while the job, or one that starts from it, has not ended. Frees its disk.
  absl::StatusOr<v1::DeleteJobReply> Delete(const std::string& name);
  // Deletes what is due of `wanted` jobs (null: of all), at most so many things; `dry_run`: only says so. What another
  // job that has not ended starts from waits for it.
  v1::ApplyRetentionReply ApplyRetention(bool dry_run, const std::function<bool(const JobRecord&)>& wanted = nullptr,
                                         size_t at_most = SIZE_MAX);
  // NOT_FOUND names those that are there.
  absl::StatusOr<v1::Job> DeleteCheckpoint(const std::string& name, uint32_t number);
  absl::StatusOr<v1::ListUpdatesReply> ListUpdates(const v1::ListUpdatesRequest& request);
  absl::StatusOr<v1::ListRolloutsReply> ListRollouts(const v1::ListRolloutsRequest& request);
  // Brings the gauges up to date that follow no event: actors, jobs, disk, the running jobs' groups of rollouts.
  void Measure();
  absl::StatusOr<v1::LedgerSummary> GetLedger(const std::string& name);

 private:
  struct Sources {
    std::string told;  // what a user should know of the data
    std::unique_ptr<PromptSource> train;
    std::vector<std::pair<std::string, std::unique_ptr<PromptSource>>> held_out;  // by name
  };
  using Opening = std::future<absl::StatusOr<Sources>>;
  // The job that a group runs.
  struct Running {
    JobRecord* job = nullptr;
    Opening opening;  // until the data is open
    std::shared_ptr<std::atomic<bool>> unwanted;  // tells the thread that opens it
    Sources sources;
    std::unique_ptr<RunLoop> run;
  };

  Controller(ControllerOptions options, const sync::Clock& clock, ActorConnector& connector,
             JobRecorder& recorder, std::function<void()> wake)
      : options_(std::move(options)),
        clock_(clock),
        connector_(connector),
        recorder_(recorder),
        wake_(std::move(wake)) {}

  static absl::StatusOr<Sources> OpenSources(const v1::JobConfig& config);
  absl::Time StepJobs();
  ActorGroups Groups() const;
  Running* RunningOf(const JobRecord& job);
  void StartJobs();
  void StartJob(JobRecord& job, const std::string& group);
  absl::Time StepGroup(Running& running);
  void BeginRun(Running& running);
  void StepRun(Running& running);
  void End(Running& running, Outcome outcome);  // a copy: the run that holds it ends here, and `running` with it
  v1::Job ToProto(const JobRecord& job, bool full, const ActorGroups& groups);
  void Reread(JobRecord& job);
  void SetState(JobRecord& job, v1::JobState state, const std::string& message);
  std::string WhatIsKept(const JobRecord& job);
  // A job that has not ended and reads weights below `folder`, which is of `job`; null: none.
  const JobRecord* ReaderOf(const JobRecord& job, const std::string& folder) const;
  absl::Status Expire(JobRecord& job, Leftover what);
  void RemoveExpiredFiles();
  // Applies retention now and then; returns when to call again.
  absl::Time KeepHouse();
  absl::StatusOr<JobRecord*> Find(const std::string& name);
  v1::Job ToProto(const JobRecord& job, bool full) { return ToProto(job, full, Groups()); }
  // The ledger of a job that runs or ran; `owned` keeps one that was opened for this.
  absl::StatusOr<Ledger*> LedgerOf(const JobRecord& job, std::unique_ptr<Ledger>& owned);
  double Now() const { return absl::ToDoubleSeconds(clock_.Now() - absl::UnixEpoch()); }

  const ControllerOptions options_;
  const sync::Clock& clock_;
  ActorConnector& connector_;
  JobRecorder& recorder_;
  const std::function<void()> wake_;
  std::unique_ptr<Store> store_;
  std::unique_ptr<ActorRegistry> registry_;
  std::vector<std::unique_ptr<JobRecord>> jobs_;  // oldest first
  std::map<std::string, Running> running_;      // by group
  std::vector<Opening> unwanted_;               // of jobs that ended meanwhile; waited for by nobody
  absl::Time next_retention_ = absl::InfinitePast();
};

bool HasEnded(v1::JobState state);

}  // namespace rein::services

// Store is the controller's durable memory: jobs, their events, checkpoints and held-out results,
// the registered actors, and the counters that must never go back. It lies in a SQLite file or on a
// PostgreSQL server; rollouts lie in files in both cases (segment_log.h).
//
// Writes gather in one transaction until Commit(); nothing may leave the process that depends on a
// write before its commit. There is one transaction for all who write, so each of them ends its own (Transact(), or
// Commit() and Rollback()) before another has its turn: what one commits is never half of another's, and what one rolls
// back is its own alone. Opening a store of an older schema brings it up to date; one of a newer
// schema is FAILED_PRECONDITION. Not thread-safe: it belongs to the controller's thread.

#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "rein/v1/controller.pb.h"
#include "services/controller/postgres_database.h"
#include "services/controller/segment_log.h"
#include "services/controller/sql_database.h"

namespace rein::services {

struct StoreOptions {
  std::string folder;  // of controller.db and the rollouts
  std::optional<PostgresOptions> postgres = std::nullopt;  // in place of controller.db
  bool durable = true;  // false: nothing is synced (tests only)
  uint64_t segment_bytes = SegmentOptions::kMaxBytes;  // of a file of rollouts
};

// One job as it is stored.
struct JobRecord {
  std::string name;
  std::string request_id;  // of its Submit
  v1::JobConfig config;    // resolved
  std::string config_hash;
  v1::JobState state = v1::JOB_STATE_QUEUED;
  std::string message;
  double submitted_at = 0;
  double ended_at = 0;
  uint64_t max_updates = 0;  // 0: not known yet
  uint64_t updates_done = 0;
  uint64_t lineage = 0;  // of the weights that updates_done counts
  uint64_t next_lineage = 1;
  uint64_t digest = 0;        // of those weights; 0: not known
  uint64_t cursor_epoch = 0;  // next prompt to issue
  uint64_t cursor_position = 0;
  uint64_t skipped_in_row = 0;  // Updates that were not finite
  std::string output;           // folder
  std::string owner;            // tenant; may be empty
  bool pausing = false;         // it will stop after the Update that runs
  uint64_t expired = 0;         // bits of what its retention has deleted (retention.h)
  std::string group;            // of actors that runs it; empty while none does
  v1::UpdateRecord figures;     // of the newest Update, as far as a list of jobs shows them
};

// What of an Update's figures a list of jobs shows.
v1::UpdateRecord ListedFigures(const v1::UpdateRecord& record);

struct ActorRecord {
  v1::Actor actor;  // role, name, address, epoch, device, build
  std::string incarnation;
};

class Store {
 public:
  static absl::StatusOr<std::unique_ptr<Store>> Open(StoreOptions options);

  Database& database() { return *database_; }
  const StoreOptions& options() const { return options_; }

  absl::Status Commit() { return database_->Commit(); }
  // What `writes` wrote is durable when this is OK, and taken back when it is not. INTERNAL, and nothing is called,
  // while another's writes are open.
  absl::Status Transact(const std::function<absl::Status()>& writes);
  // As Database has it.
  absl::StatusOr<uint64_t> ControllerEpoch() { return database_->ControllerEpoch(); }

  // Adds one to a counter that starts at 0 and gives the new value.
  absl::StatusOr<uint64_t> Increment(const std::string& counter);

  // Jobs, oldest first.
  absl::StatusOr<std::vector<JobRecord>> ReadJobs();
  absl::Status InsertJob(const JobRecord& job);
  absl::Status UpdateJob(const JobRecord& job);
  // With its events, records, ledger and rollouts.
  absl::Status DeleteJob(const std::string& job);
  // Its rollouts alone, without their files.
  absl::Status DeleteRollouts(const std::string& job);
  // Folder of the job's rollouts.
  std::string RolloutFolder(const std::string& job) const;
  // With PostgreSQL a controller that was replaced may still have files open there.
  absl::StatusOr<std::unique_ptr<SegmentLog>> OpenRollouts(const std::string& job) const;

  // Gives the event its sequence number.
  absl::Status AppendEvent(const std::string& job, v1::JobEvent& event);
  absl::StatusOr<std::vector<v1::JobEvent>> ReadEvents(const std::string& job, uint64_t after);
  // How many were appended since the store was opened.
  uint64_t events_appended() const { return events_appended_; }
  // The newest UpdateRecord at or below `update`, if any.
  absl::StatusOr<std::optional<v1::UpdateRecord>> ReadUpdate(const std::string& job,
                                                             uint64_t update);

  // Records of updates after `after`, oldest first.
  absl::StatusOr<std::vector<v1::UpdateRecord>> ReadUpdates(const std::string& job, uint64_t after);

  absl::Status InsertCheckpoint(const std::string& job, const v1::Checkpoint& checkpoint);
  absl::Status DeleteCheckpoint(const std::string& job, uint32_t number);
  // Oldest first.
  absl::StatusOr<std::vector<v1::Checkpoint>> ReadCheckpoints(const std::string& job);

  // Replaces a result for the same update.
  absl::Status PutEval(const std::string& job, const v1::EvalResult& result);
  absl::StatusOr<std::vector<v1::EvalResult>> ReadEvals(const std::string& job);
  absl::Status PutUpdate(const std::string& job, const v1::UpdateRecord& record);

  absl::Status PutActor(const ActorRecord& actor);
  absl::StatusOr<std::vector<ActorRecord>> ReadActors();

 private:
  Store(StoreOptions options, std::unique_ptr<Database> database)
      : options_(std::move(options)), database_(std::move(database)) {}
  absl::Status Migrate();

  const StoreOptions options_;
  std::unique_ptr<Database> database_;
  uint64_t events_appended_ = 0;
};

}  // namespace rein::services

#include "services/controller/store.h"

#include <filesystem>
#include <utility>

#include "absl/strings/str_cat.h"

#include "common/status/status_macros.h"
#include "services/controller/sqlite_database.h"
#include "services/controller/store_schema.h"

namespace rein::services {
namespace {

constexpr char kSelectJobs[] =
    "SELECT name, request_id, config, config_hash, state, message, submitted_at, ended_at, "
    "max_updates, updates_done, lineage, next_lineage, digest, cursor_epoch, cursor_position, "
    "skipped_in_row, output, pausing, owner, figures, expired, actor_group FROM jobs ORDER BY id";

absl::StatusOr<JobRecord> ToJob(const Statement& row) {
  JobRecord job;
  job.name = row.Bytes(0);
  job.request_id = row.Bytes(1);
  if (!job.config.ParseFromString(row.Bytes(2))) {
    return absl::DataLossError(absl::StrCat("store: the config of job ", job.name, " is damaged"));
  }
  job.config_hash = row.Bytes(3);
  job.state = static_cast<v1::JobState>(row.Unsigned(4));
  job.message = row.Bytes(5);
  job.submitted_at = row.Double(6);
  job.ended_at = row.Double(7);
  job.max_updates = row.Unsigned(8);
  job.updates_done = row.Unsigned(9);
  job.lineage = row.Unsigned(10);
  job.next_lineage = row.Unsigned(11);
  job.digest = row.Unsigned(12);
  job.cursor_epoch = row.Unsigned(13);
  job.cursor_position = row.Unsigned(14);
  job.skipped_in_row = row.Unsigned(15);
  job.output = row.Bytes(16);
  job.pausing = row.Unsigned(17) != 0;
  job.owner = row.Bytes(18);
  v1::UpdateRecord figures;
  if (!figures.ParseFromString(row.Bytes(19))) {
    return absl::DataLossError(absl::StrCat("store: the figures of job ", job.name, " are damaged"));
  }
  job.figures = ListedFigures(figures);
  job.expired = row.Unsigned(20);
  job.group = row.Bytes(21);
  return job;
}

// Binds what may change, from parameter 1 on; returns the next free index.
int BindState(Statement& statement, const JobRecord& job) {
  statement.Bind(1, job.config.SerializeAsString()).Bind(2, job.config_hash);
  statement.Bind(3, static_cast<uint64_t>(job.state)).Bind(4, job.message);
  statement.Bind(5, job.submitted_at).Bind(6, job.ended_at).Bind(7, job.max_updates);
  statement.Bind(8, job.updates_done).Bind(9, job.lineage).Bind(10, job.next_lineage);
  statement.Bind(11, job.digest).Bind(12, job.cursor_epoch).Bind(13, job.cursor_position);
  statement.Bind(14, job.skipped_in_row).Bind(15, job.output).Bind(16, uint64_t{job.pausing});
  statement.Bind(17, job.figures.SerializeAsString()).Bind(18, job.expired).Bind(19, job.group);
  return 20;
}

// Rows of "SELECT blob ..." as messages.
template <typename Message>
absl::StatusOr<std::vector<Message>> ReadMessages(Statement statement) {
  std::vector<Message> messages;
  while (statement.Next()) {
    if (!messages.emplace_back().ParseFromString(statement.Bytes(0))) {
      return absl::DataLossError(
          absl::StrCat("store: a ", Message::descriptor()->name(), " is damaged"));
    }
  }
  REIN_RETURN_IF_ERROR(statement.status());
  return messages;
}

}  // namespace

v1::UpdateRecord ListedFigures(const v1::UpdateRecord& record) {
  v1::UpdateRecord listed;
  for (const v1::Metric& metric : record.metrics()) {
    for (const char* name : {"reward", "loss", "tokens_per_second"}) {
      if (metric.name() == name) *listed.add_metrics() = metric;
    }
  }
  return listed;
}

absl::StatusOr<std::unique_ptr<Store>> Store::Open(StoreOptions options) {
  std::error_code error;
  std::filesystem::create_directories(options.folder, error);
  if (error)
    return absl::ErrnoToStatus(error.value(), absl::StrCat("cannot make ", options.folder));
  std::unique_ptr<Database> database;
  if (options.postgres.has_value()) {
    REIN_ASSIGN_OR_RETURN(database, PostgresDatabase::Open(*options.postgres, options.durable));
  } else {
    REIN_ASSIGN_OR_RETURN(database, SqliteDatabase::Open(options.folder + "/controller.db", options.durable));
  }
  auto store = std::unique_ptr<Store>(new Store(std::move(options), std::move(database)));
  REIN_RETURN_IF_ERROR(store->Migrate());
  return store;
}

absl::Status Store::Migrate() {
  REIN_ASSIGN_OR_RETURN(uint64_t version, database_->SchemaVersion());
  if (version > kSchemaSteps.size()) {
    return absl::FailedPreconditionError(
        absl::StrCat(database_->Describe(), ": the store has schema version ", version,
                     ", this program knows up to ", kSchemaSteps.size(), ": use a newer one"));
  }
  for (; version < kSchemaSteps.size(); ++version) {
    REIN_RETURN_IF_ERROR(database_->ApplySchemaStep(kSchemaSteps[version], version + 1));
  }
  return absl::OkStatus();
}

absl::Status Store::Transact(const std::function<absl::Status()>& writes) {
  if (database_->HasOpenWrites()) return absl::InternalError("bug: the writes of another are open in the store");
  absl::Status status = writes();
  if (status.ok()) status = Commit();
  if (!status.ok()) database_->Rollback();
  return status;
}

absl::StatusOr<uint64_t> Store::Increment(const std::string& counter) {
  REIN_RETURN_IF_ERROR(database_
                           ->Prepare("INSERT INTO counters VALUES (?, 1) "
                                     "ON CONFLICT (name) DO UPDATE SET value = counters.value + 1")
                           .Bind(1, counter)
                           .Run());
  Statement query = database_->Prepare("SELECT value FROM counters WHERE name = ?");
  query.Bind(1, counter);
  if (!query.Next()) {
    REIN_RETURN_IF_ERROR(query.status());
    return absl::InternalError(absl::StrCat("store: no counter ", counter));
  }
  return query.Unsigned(0);
}

absl::StatusOr<std::vector<JobRecord>> Store::ReadJobs() {
  std::vector<JobRecord> jobs;
  Statement query = database_->Prepare(kSelectJobs);
  while (query.Next()) {
    REIN_ASSIGN_OR_RETURN(JobRecord job, ToJob(query));
    jobs.push_back(std::move(job));
  }
  REIN_RETURN_IF_ERROR(query.status());
  return jobs;
}

absl::Status Store::InsertJob(const JobRecord& job) {
  Statement insert = database_->Prepare(
      "INSERT INTO jobs (config, config_hash, state, message, submitted_at, ended_at, max_updates, "
      "updates_done, lineage, next_lineage, digest, cursor_epoch, cursor_position, "
      "skipped_in_row, output, pausing, figures, expired, actor_group, name, request_id, owner) "
      "VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)");
  int next = BindState(insert, job);
  return insert.Bind(next, job.name).Bind(next + 1, job.request_id).Bind(next + 2, job.owner).Run();
}

absl::Status Store::DeleteJob(const std::string& job) {
  for (const char* table : {"events", "updates", "checkpoints", "evals", "groups", "rollouts"}) {
    Statement rows = database_->Prepare(absl::StrCat("DELETE FROM ", table, " WHERE job = ?"));
    REIN_RETURN_IF_ERROR(rows.Bind(1, job).Run());
  }
  return database_->Prepare("DELETE FROM jobs WHERE name = ?").Bind(1, job).Run();
}

absl::Status Store::DeleteRollouts(const std::string& job) {
  return database_->Prepare("DELETE FROM rollouts WHERE job = ?").Bind(1, job).Run();
}

std::string Store::RolloutFolder(const std::string& job) const {
  return absl::StrCat(options_.folder, "/rollouts/", job);
}

absl::StatusOr<std::unique_ptr<SegmentLog>> Store::OpenRollouts(const std::string& job) const {
  return SegmentLog::Open(RolloutFolder(job), {.durable = options_.durable,
                                               .max_bytes = options_.segment_bytes,
                                               .shared = options_.postgres.has_value()});
}

absl::Status Store::UpdateJob(const JobRecord& job) {
  Statement update = database_->Prepare(
      "UPDATE jobs SET config=?, config_hash=?, state=?, message=?, submitted_at=?, ended_at=?, "
      "max_updates=?, updates_done=?, lineage=?, next_lineage=?, digest=?, cursor_epoch=?, "
      "cursor_position=?, skipped_in_row=?, output=?, pausing=?, figures=?, expired=?, actor_group=? WHERE name=?");
  int next = BindState(update, job);
  return update.Bind(next, job.name).Run();
}

absl::Status Store::AppendEvent(const std::string& job, v1::JobEvent& event) {
  Statement query =
      database_->Prepare("SELECT COALESCE(MAX(sequence), 0) FROM events WHERE job = ?");
  query.Bind(1, job);
  if (!query.Next()) return query.status();
  event.set_sequence(query.Unsigned(0) + 1);
  ++events_appended_;
  return database_->Prepare("INSERT INTO events VALUES (?, ?, ?)")
      .Bind(1, job)
      .Bind(2, event.sequence())
      .Bind(3, event.SerializeAsString())
      .Run();
}

absl::StatusOr<std::vector<v1::JobEvent>> Store::ReadEvents(const std::string& job,
                                                            uint64_t after) {
  Statement query = database_->Prepare(
      "SELECT event FROM events WHERE job = ? AND sequence > ? ORDER BY sequence");
  query.Bind(1, job).Bind(2, after);
  return ReadMessages<v1::JobEvent>(std::move(query));
}

absl::Status Store::PutUpdate(const std::string& job, const v1::UpdateRecord& record) {
  return database_->Prepare("INSERT INTO updates VALUES (?, ?, ?) "
                            "ON CONFLICT (job, number) DO UPDATE SET record = excluded.record")
      .Bind(1, job)
      .Bind(2, record.update())
      .Bind(3, record.SerializeAsString())
      .Run();
}

absl::StatusOr<std::optional<v1::UpdateRecord>> Store::ReadUpdate(const std::string& job,
                                                                  uint64_t update) {
  Statement query = database_->Prepare(
      "SELECT record FROM updates WHERE job = ? AND number <= ? ORDER BY number DESC LIMIT 1");
  query.Bind(1, job).Bind(2, update);
  REIN_ASSIGN_OR_RETURN(auto records, ReadMessages<v1::UpdateRecord>(std::move(query)));
  if (records.empty()) return std::nullopt;
  return records.front();
}

absl::StatusOr<std::vector<v1::UpdateRecord>> Store::ReadUpdates(const std::string& job,
                                                                 uint64_t after) {
  Statement query =
      database_->Prepare("SELECT record FROM updates WHERE job = ? AND number > ? ORDER BY number");
  query.Bind(1, job).Bind(2, after);
  return ReadMessages<v1::UpdateRecord>(std::move(query));
}

absl::Status Store::InsertCheckpoint(const std::string& job, const v1::Checkpoint& checkpoint) {
  return database_->Prepare("INSERT INTO checkpoints VALUES (?, ?, ?)")
      .Bind(1, job)
      .Bind(2, uint64_t{checkpoint.number()})
      .Bind(3, checkpoint.SerializeAsString())
      .Run();
}

absl::Status Store::DeleteCheckpoint(const std::string& job, uint32_t number) {
  return database_->Prepare("DELETE FROM checkpoints WHERE job = ? AND number = ?")
      .Bind(1, job)
      .Bind(2, uint64_t{number})
      .Run();
}

absl::StatusOr<std::vector<v1::Checkpoint>> Store::ReadCheckpoints(const std::string& job) {
  Statement query =
      database_->Prepare("SELECT checkpoint FROM checkpoints WHERE job = ? ORDER BY number");
  query.Bind(1, job);
  return ReadMessages<v1::Checkpoint>(std::move(query));
}

absl::Status Store::PutEval(const std::string& job, const v1::EvalResult& result) {
  return database_->Prepare("INSERT INTO evals VALUES (?, ?, ?) "
                            "ON CONFLICT (job, number) DO UPDATE SET result = excluded.result")
      .Bind(1, job)
      .Bind(2, result.update())
      .Bind(3, result.SerializeAsString())
      .Run();
}

absl::StatusOr<std::vector<v1::EvalResult>> Store::ReadEvals(const std::string& job) {
  Statement query = database_->Prepare("SELECT result FROM evals WHERE job = ? ORDER BY number");
  query.Bind(1, job);
  return ReadMessages<v1::EvalResult>(std::move(query));
}

absl::Status Store::PutActor(const ActorRecord& actor) {
  return database_->Prepare("INSERT INTO actors VALUES (?, ?, ?) ON CONFLICT (name) "
                            "DO UPDATE SET incarnation = excluded.incarnation, actor = excluded.actor")
      .Bind(1, actor.actor.name())
      .Bind(2, actor.incarnation)
      .Bind(3, actor.actor.SerializeAsString())
      .Run();
}

absl::StatusOr<std::vector<ActorRecord>> Store::ReadActors() {
  std::vector<ActorRecord> actors;
  Statement query = database_->Prepare("SELECT incarnation, actor FROM actors ORDER BY name");
  while (query.Next()) {
    ActorRecord& record = actors.emplace_back();
    record.incarnation = query.Bytes(0);
    if (!record.actor.ParseFromString(query.Bytes(1))) {
      return absl::DataLossError("store: an actor is damaged");
    }
  }
  REIN_RETURN_IF_ERROR(query.status());
  return actors;
}

}  // namespace rein::services

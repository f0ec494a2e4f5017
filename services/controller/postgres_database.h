// PostgresDatabase is a Database on a PostgreSQL server, for the controller that leads (leader_lease.h).
//
// Writes gather here and go out together, with Commit() or before the next query: BEGIN, the fence, the writes, COMMIT
// in one round trip. The fence is a row that each transaction locks and compares with this controller's epoch, so a
// controller that was replaced changes nothing any more, however late its writes come. A connection that is lost is
// made again and the open transaction repeated; a commit whose answer was lost is asked for by its number, never done
// twice. When that does not succeed within `patience`, or another controller leads, the database is given up: every
// call is answered with why, and `on_lost` is told once. Not thread-safe.

#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "services/controller/postgres_connection.h"
#include "services/controller/sql_database.h"

namespace rein::services {

struct PostgresOptions {
  PostgresAddress address;
  uint64_t epoch = 0;  // of the lease
  absl::Duration patience = absl::Seconds(30);
  std::function<void(const absl::Status&)> on_lost = nullptr;  // called from the thread of the call that fails
};

// The name of a leader's sessions in pg_stat_activity.
std::string LeaderSession(uint64_t epoch);

class PostgresDatabase final : public Database {
 public:
  // UNAVAILABLE when the server is not reached within `patience`. `durable` as in PostgresConnection.
  static absl::StatusOr<std::unique_ptr<PostgresDatabase>> Open(PostgresOptions options, bool durable = true);

  absl::Status Write(const std::string& sql, const std::vector<SqlValue>& values) override;
  absl::StatusOr<std::unique_ptr<SqlRows>> Read(const std::string& sql,
                                                const std::vector<SqlValue>& values) override;
  absl::StatusOr<uint64_t> SchemaVersion() override;
  absl::Status ApplySchemaStep(const std::string& step, uint64_t version) override;
  absl::Status Commit() override;
  void Rollback() override;
  bool HasOpenWrites() const override { return !writes_.empty() && !abandoned_; }
  void Abandon() override { abandoned_ = true; }
  absl::StatusOr<uint64_t> ControllerEpoch() override { return options_.epoch; }
  std::string Describe() const override { return options_.address.shown; }

 private:
  using Results = absl::StatusOr<std::vector<PostgresRows>>;

  PostgresDatabase(PostgresOptions options, bool durable) : options_(std::move(options)), durable_(durable) {}
  absl::Status Connect();
  // Sends the writes that the server has not seen, then `query` if there is one, and ends the transaction if asked.
  // Repeats it while the server is away.
  Results Send(const SqlStatement* query, bool commit);
  Results SendOnce(const SqlStatement* query, bool commit);
  absl::Status GiveUp(const absl::Status& why);
  void ForgetSession();

  const PostgresOptions options_;
  const bool durable_;
  std::unique_ptr<PostgresConnection> connection_;
  std::vector<SqlStatement> writes_;  // of the open transaction, all of them: they may have to be repeated
  size_t sent_ = 0;                   // of these, in the transaction that is open on the server
  bool open_ = false;                 // there is one
  uint64_t commits_ = 0;              // under this epoch
  absl::Status lost_;
  bool abandoned_ = false;
};

}  // namespace rein::services

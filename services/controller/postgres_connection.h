// PostgresConnection is one session with a PostgreSQL server.
//
//   REIN_ASSIGN_OR_RETURN(auto session, PostgresConnection::Open(address, "rein-lease"));
//   REIN_ASSIGN_OR_RETURN(auto results, session->Run({{"SELECT value FROM counters WHERE name = ?", {name}}}));
//
// Statements of one Run() go out together and are answered together (libpq's pipeline mode): one round trip. The first
// that fails ends the rest. Each SQL text is prepared once. UNAVAILABLE: the session is over, or the server is not there
// or does not take writes; whether the last Run() had an effect is then not known. Not thread-safe.

#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "services/controller/postgres_address.h"
#include "services/controller/sql_database.h"

struct pg_conn;
struct pg_result;

namespace rein::services {

struct SqlStatement {
  std::string sql;  // one statement, ? for parameters
  std::vector<SqlValue> values;
};

// The answer to one statement.
class PostgresRows final : public SqlRows {
 public:
  explicit PostgresRows(pg_result* result) : result_(result) {}
  PostgresRows(PostgresRows&& other) noexcept;
  ~PostgresRows() override;

  bool Next() override;
  absl::Status status() const override { return absl::OkStatus(); }  // all rows are here
  uint64_t Unsigned(int column) const override;  // of any integer, or a truth value
  double Double(int column) const override;
  std::string Bytes(int column) const override;
  // Rows that a statement without answer rows changed.
  uint64_t changed() const;

 private:
  pg_result* result_;
  int row_ = -1;
};

// Errors that the function rein_fence of postgres_schema.h raises.
inline constexpr char kReplacedState[] = "RE001";
inline constexpr char kCommittedState[] = "RE002";

class PostgresConnection {
 public:
  // `name` is what pg_stat_activity calls the session. Commits are on disk, and on synchronous standbys, before they
  // are answered; FAILED_PRECONDITION for a server that runs with fsync=off, unless `durable` is false.
  static absl::StatusOr<std::unique_ptr<PostgresConnection>> Open(const PostgresAddress& address,
                                                                  const std::string& name, bool durable = true);
  ~PostgresConnection();

  absl::StatusOr<std::vector<PostgresRows>> Run(const std::vector<SqlStatement>& statements);
  // SQLSTATE of the last Run() that failed; "" when the server said none.
  const std::string& sql_state() const { return sql_state_; }

 private:
  PostgresConnection(pg_conn* connection, std::string shown) : connection_(connection), shown_(std::move(shown)) {}
  absl::Status Send(const SqlStatement& statement, std::vector<const std::string*>& expected);
  // Waits for the next result of the pipeline; null: between two statements.
  absl::StatusOr<pg_result*> Take(absl::Time until);
  absl::Status Lost(const std::string& why);
  absl::Status ErrorOf(const pg_result* result);

  pg_conn* connection_;
  const std::string shown_;
  std::map<std::string, std::string> prepared_;  // SQL to name
  uint64_t next_name_ = 0;
  std::string sql_state_;
};

}  // namespace rein::services

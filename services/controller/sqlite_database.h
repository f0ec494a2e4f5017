// Database is one SQLite file in WAL mode with synchronous=FULL: what was committed survives a
// crash of the process and of the machine.
//
//   REIN_ASSIGN_OR_RETURN(auto database, Database::Open(path));
//   Statement insert = database->Prepare("INSERT INTO jobs VALUES (?, ?)");
//   insert.Bind(1, name).Bind(2, 3);
//   REIN_RETURN_IF_ERROR(insert.Run());
//   REIN_RETURN_IF_ERROR(database->Commit());
//
// The first write opens a transaction, Commit() ends it; what was not committed is gone after a
// crash. Not thread-safe.

#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

struct sqlite3;
struct sqlite3_stmt;

namespace rein::services {

class Database;

// One SQL statement with its parameters, numbered from 1, and its result row, numbered from 0.
class Statement {
 public:
  Statement(Statement&& other) noexcept;
  Statement(const Statement&) = delete;
  ~Statement();

  Statement& Bind(int index, int64_t value);
  Statement& Bind(int index, uint64_t value);
  Statement& Bind(int index, double value);
  Statement& Bind(int index, const std::string& bytes);

  // Executes a statement without rows.
  absl::Status Run();
  // True: a row is there. False: the end, or an error (then status() says which).
  bool Next();
  const absl::Status& status() const { return status_; }

  uint64_t Unsigned(int column) const;
  double Double(int column) const;
  std::string Bytes(int column) const;

 private:
  friend class Database;
  Statement(Database* database, sqlite3_stmt* statement, absl::Status status)
      : database_(database), statement_(statement), status_(std::move(status)) {}

  Database* database_;
  sqlite3_stmt* statement_;
  absl::Status status_;
};

class Database {
 public:
  // Creates the file when it is absent. `durable` false: nothing is synced (tests only).
  static absl::StatusOr<std::unique_ptr<Database>> Open(const std::string& path,
                                                        bool durable = true);
  ~Database();

  // An error in the SQL comes out of Run() or status().
  Statement Prepare(const std::string& sql);
  // Several statements without parameters.
  absl::Status Execute(const std::string& sql);

  absl::Status Begin();  // nothing when a transaction is open
  absl::Status Commit();
  void Rollback();
  // From now on nothing is committed, as if the process had died here (the simulation's crashes).
  void Abandon();
  bool in_transaction() const { return in_transaction_; }

 private:
  friend class Statement;
  explicit Database(sqlite3* handle) : handle_(handle) {}
  absl::Status Error(int code, const std::string& doing) const;

  sqlite3* handle_;
  bool in_transaction_ = false;
  bool abandoned_ = false;
};

}  // namespace rein::services

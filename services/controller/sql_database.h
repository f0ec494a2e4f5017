// Database is the SQL store behind Store and Ledger: a SQLite file or a PostgreSQL server. What was
// committed survives a crash of the process and of the machine.
//
//   Statement insert = database.Prepare("INSERT INTO jobs VALUES (?, ?)");
//   insert.Bind(1, name).Bind(2, 3);
//   REIN_RETURN_IF_ERROR(insert.Run());
//   REIN_RETURN_IF_ERROR(database.Commit());
//
// The first write opens a transaction, Commit() ends it; what was not committed is gone after a
// crash. It is committed whole or not at all: where one of its writes failed so does Commit(), until
// Rollback(). A statement sees the writes before it. SQL is what both know (ON CONFLICT, no PRAGMA, ?
// for parameters); what differs lies in the two implementations. Not thread-safe.

#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace rein::services {

using SqlValue = std::variant<int64_t, double, std::string>;

// The rows of a query, one at a time; columns are numbered from 0.
class SqlRows {
 public:
  virtual ~SqlRows() = default;
  // True: a row is there. False: the end, or an error (then status() says which).
  virtual bool Next() = 0;
  virtual absl::Status status() const = 0;
  virtual uint64_t Unsigned(int column) const = 0;
  virtual double Double(int column) const = 0;
  virtual std::string Bytes(int column) const = 0;  // "" for NULL
};

class Statement;

class Database {
 public:
  virtual ~Database() = default;

  // An error in the SQL comes out of Run() or status(), with PostgreSQL at the latest out of Commit().
  Statement Prepare(std::string sql);

  // Executes a statement without rows; `values` are those of its ? in order.
  virtual absl::Status Write(const std::string& sql, const std::vector<SqlValue>& values) = 0;
  virtual absl::StatusOr<std::unique_ptr<SqlRows>> Read(const std::string& sql,
                                                        const std::vector<SqlValue>& values) = 0;

  // Of the tables; 0: there are none.
  virtual absl::StatusOr<uint64_t> SchemaVersion() = 0;
  // Executes a step of store_schema.h in this database's dialect, and commits it with the new version.
  virtual absl::Status ApplySchemaStep(const std::string& step, uint64_t version) = 0;

  virtual absl::Status Commit() = 0;
  virtual void Rollback() = 0;
  // There are writes that were neither committed nor rolled back.
  virtual bool HasOpenWrites() const = 0;
  // From now on nothing is committed, as if the process had died here (the simulation's crashes).
  virtual void Abandon() = 0;

  // A number that no other controller on this database has or had; writes of lower ones are refused
  // from here on. The first call takes it.
  virtual absl::StatusOr<uint64_t> ControllerEpoch() = 0;
  // For people: the file, or user, host and name of the database.
  virtual std::string Describe() const = 0;
};

// One SQL statement with its parameters, numbered from 1, and its result row, numbered from 0.
class Statement {
 public:
  Statement(Database* database, std::string sql) : database_(database), sql_(std::move(sql)) {}

  Statement& Bind(int index, int64_t value) { return Keep(index, value); }
  Statement& Bind(int index, uint64_t value) { return Keep(index, static_cast<int64_t>(value)); }
  Statement& Bind(int index, double value) { return Keep(index, value); }
  Statement& Bind(int index, const std::string& bytes) { return Keep(index, bytes); }

  // Executes a statement without rows.
  absl::Status Run() { return database_->Write(sql_, values_); }
  // True: a row is there. False: the end, or an error (then status() says which).
  bool Next() {
    if (rows_ == nullptr && status_.ok()) {
      absl::StatusOr<std::unique_ptr<SqlRows>> rows = database_->Read(sql_, values_);
      status_ = rows.status();
      if (rows.ok()) rows_ = *std::move(rows);
    }
    if (rows_ == nullptr || rows_->Next()) return rows_ != nullptr;
    status_ = rows_->status();
    return false;
  }
  const absl::Status& status() const { return status_; }

  uint64_t Unsigned(int column) const { return rows_->Unsigned(column); }
  double Double(int column) const { return rows_->Double(column); }
  std::string Bytes(int column) const { return rows_->Bytes(column); }

 private:
  Statement& Keep(int index, SqlValue value) {
    if (values_.size() < static_cast<size_t>(index)) values_.resize(static_cast<size_t>(index));
    values_[static_cast<size_t>(index) - 1] = std::move(value);
    return *this;
  }

  Database* database_;
  std::string sql_;
  std::vector<SqlValue> values_;
  std::unique_ptr<SqlRows> rows_;
  absl::Status status_;
};

inline Statement Database::Prepare(std::string sql) { return Statement(this, std::move(sql)); }

}  // namespace rein::services

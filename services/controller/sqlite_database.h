// SqliteDatabase is a Database in one file, in WAL mode with synchronous=FULL. One process has it at a
// time: that is what fences a second controller.

#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "services/controller/sql_database.h"

struct sqlite3;

namespace rein::services {

class SqliteDatabase final : public Database {
 public:
  // Creates the file when it is absent; FAILED_PRECONDITION while another process has it. `durable`
  // false: nothing is synced (tests only).
  static absl::StatusOr<std::unique_ptr<SqliteDatabase>> Open(const std::string& path, bool durable = true);
  ~SqliteDatabase() override;

  absl::Status Write(const std::string& sql, const std::vector<SqlValue>& values) override;
  absl::StatusOr<std::unique_ptr<SqlRows>> Read(const std::string& sql,
                                                const std::vector<SqlValue>& values) override;
  absl::StatusOr<uint64_t> SchemaVersion() override;
  absl::Status ApplySchemaStep(const std::string& step, uint64_t version) override;
  absl::Status Commit() override;
  void Rollback() override;
  bool HasOpenWrites() const override { return in_transaction_ && !abandoned_; }
  void Abandon() override { abandoned_ = true; }
  absl::StatusOr<uint64_t> ControllerEpoch() override;
  std::string Describe() const override { return path_; }

  // Several statements without parameters, in no transaction of Commit().
  absl::Status Execute(const std::string& sql);

 private:
  SqliteDatabase(sqlite3* handle, std::string path) : handle_(handle), path_(std::move(path)) {}
  absl::Status Begin();  // nothing when a transaction is open

  sqlite3* handle_;
  const std::string path_;
  std::optional<uint64_t> epoch_;
  bool in_transaction_ = false;
  absl::Status failed_;  // of the transaction: SQLite may have rolled it back and would go on without one
  bool abandoned_ = false;
};

}  // namespace rein::services

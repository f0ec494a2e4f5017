#include "services/controller/sqlite_database.h"

#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include <sqlite3.h>

#include "common/files/disk_room.h"
#include "common/status/status_macros.h"

namespace rein::services {
namespace {

absl::Status ErrorOf(sqlite3* handle, int code, const std::string& doing) {
  std::string text = absl::StrCat("store: ", sqlite3_errmsg(handle), " (", doing, ")");
  const int primary = code & 0xff;
  if (primary == SQLITE_FULL || primary == SQLITE_IOERR) {
    const char* name = sqlite3_db_filename(handle, "main");
    const std::string path = name == nullptr ? "" : name;
    absl::StrAppend(&text, " in ", path, files::DiskRoom(path, primary == SQLITE_FULL ? ENOSPC : sqlite3_system_errno(handle)));
  }
  switch (primary) {
    case SQLITE_FULL:
      return absl::ResourceExhaustedError(text);
    case SQLITE_CONSTRAINT:
      return absl::AlreadyExistsError(text);
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
      return absl::DataLossError(text);
    default:
      return absl::InternalError(text);
  }
}

class SqliteRows final : public SqlRows {
 public:
  SqliteRows(sqlite3* handle, const std::string& sql, const std::vector<SqlValue>& values)
      : handle_(handle) {
    int code = sqlite3_prepare_v2(handle_, sql.c_str(), static_cast<int>(sql.size()), &statement_, nullptr);
    if (code != SQLITE_OK) {
      status_ = ErrorOf(handle_, code, sql);
      return;
    }
    for (size_t i = 0; i < values.size(); ++i) Bind(static_cast<int>(i) + 1, values[i]);
  }
  ~SqliteRows() override { sqlite3_finalize(statement_); }

  bool Next() override {
    if (!status_.ok()) return false;
    int code = sqlite3_step(statement_);
    if (code == SQLITE_ROW) return true;
    if (code != SQLITE_DONE) status_ = ErrorOf(handle_, code, sqlite3_sql(statement_));
    return false;
  }
  absl::Status status() const override { return status_; }
  uint64_t Unsigned(int column) const override {
    return static_cast<uint64_t>(sqlite3_column_int64(statement_, column));
  }
  double Double(int column) const override { return sqlite3_column_double(statement_, column); }
  std::string Bytes(int column) const override {
    const void* bytes = sqlite3_column_blob(statement_, column);
    if (bytes == nullptr) return "";
    return std::string(static_cast<const char*>(bytes),
                       static_cast<size_t>(sqlite3_column_bytes(statement_, column)));
  }

 private:
  void Bind(int index, const SqlValue& value) {
    if (const auto* number = std::get_if<int64_t>(&value)) {
      sqlite3_bind_int64(statement_, index, *number);
    } else if (const auto* real = std::get_if<double>(&value)) {
      sqlite3_bind_double(statement_, index, *real);
    } else {
      const std::string& bytes = std::get<std::string>(value);
      sqlite3_bind_blob64(statement_, index, bytes.data(), bytes.size(), SQLITE_TRANSIENT);
    }
  }

  sqlite3* handle_;
  sqlite3_stmt* statement_ = nullptr;
  absl::Status status_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<SqliteDatabase>> SqliteDatabase::Open(const std::string& path, bool durable) {
  sqlite3* handle = nullptr;
  int code =
      sqlite3_open_v2(path.c_str(), &handle,
                      SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, nullptr);
  auto database = std::unique_ptr<SqliteDatabase>(new SqliteDatabase(handle, path));
  if (code != SQLITE_OK) return ErrorOf(handle, code, absl::StrCat("open ", path));
  // EXCLUSIVE: a second controller on the same folder is an error, not a second writer.
  REIN_RETURN_IF_ERROR(database->Execute(absl::StrCat(
      "PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = ", durable ? "WAL" : "MEMORY",
      "; PRAGMA synchronous = ", durable ? "FULL" : "OFF", "; PRAGMA foreign_keys = ON;")));
  absl::Status locked = database->Execute("BEGIN IMMEDIATE; COMMIT;");
  if (!locked.ok()) {
    return absl::FailedPreconditionError(
        absl::StrCat(path, " is in use: another controller runs on this folder (",
                     std::string(locked.message()), ")"));
  }
  return database;
}

SqliteDatabase::~SqliteDatabase() {
  Rollback();
  sqlite3_close(handle_);
}

absl::Status SqliteDatabase::Write(const std::string& sql, const std::vector<SqlValue>& values) {
  REIN_RETURN_IF_ERROR(failed_);
  REIN_RETURN_IF_ERROR(Begin());
  SqliteRows rows(handle_, sql, values);
  while (rows.Next()) {
  }
  failed_ = rows.status();
  return failed_;
}

absl::StatusOr<std::unique_ptr<SqlRows>> SqliteDatabase::Read(const std::string& sql,
                                                              const std::vector<SqlValue>& values) {
  auto rows = std::make_unique<SqliteRows>(handle_, sql, values);
  REIN_RETURN_IF_ERROR(rows->status());
  return rows;
}

absl::StatusOr<uint64_t> SqliteDatabase::SchemaVersion() {
  SqliteRows rows(handle_, "PRAGMA user_version", {});
  if (!rows.Next()) return rows.status();
  return rows.Unsigned(0);
}

absl::Status SqliteDatabase::ApplySchemaStep(const std::string& step, uint64_t version) {
  REIN_RETURN_IF_ERROR(Begin());
  REIN_RETURN_IF_ERROR(Execute(step));
  REIN_RETURN_IF_ERROR(Execute(absl::StrCat("PRAGMA user_version = ", version)));
  return Commit();
}

absl::StatusOr<uint64_t> SqliteDatabase::ControllerEpoch() {
  if (epoch_.has_value()) return *epoch_;
  REIN_RETURN_IF_ERROR(Write("INSERT INTO counters VALUES (?, 1) ON CONFLICT (name) DO UPDATE SET value = value + 1",
                             {"controller_epoch"}));
  SqliteRows rows(handle_, "SELECT value FROM counters WHERE name = ?", {"controller_epoch"});
  if (!rows.Next()) return rows.status();
  const uint64_t epoch = rows.Unsigned(0);
  REIN_RETURN_IF_ERROR(Commit());
  epoch_ = epoch;
  return epoch;
}

absl::Status SqliteDatabase::Execute(const std::string& sql) {
  int code = sqlite3_exec(handle_, sql.c_str(), nullptr, nullptr, nullptr);
  return code == SQLITE_OK ? absl::OkStatus() : ErrorOf(handle_, code, sql);
}

absl::Status SqliteDatabase::Begin() {
  if (in_transaction_) return absl::OkStatus();
  REIN_RETURN_IF_ERROR(Execute("BEGIN IMMEDIATE"));
  in_transaction_ = true;
  return absl::OkStatus();
}

absl::Status SqliteDatabase::Commit() {
  if (!in_transaction_) return absl::OkStatus();
  if (abandoned_) return absl::OkStatus();  // what was written is seen by this process alone
  REIN_RETURN_IF_ERROR(failed_);
  failed_ = Execute("COMMIT");
  in_transaction_ = !failed_.ok();
  return failed_;
}

void SqliteDatabase::Rollback() {
  if (!in_transaction_) return;
  sqlite3_exec(handle_, "ROLLBACK", nullptr, nullptr, nullptr);
  in_transaction_ = false;
  failed_ = absl::OkStatus();
}

}  // namespace rein::services

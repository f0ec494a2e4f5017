#include "services/controller/sqlite_database.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include <sqlite3.h>

#include "common/status/status_macros.h"

namespace rein::services {

Statement::Statement(Statement&& other) noexcept
    : database_(other.database_),
      statement_(std::exchange(other.statement_, nullptr)),
      status_(std::move(other.status_)) {}

Statement::~Statement() { sqlite3_finalize(statement_); }

Statement& Statement::Bind(int index, int64_t value) {
  sqlite3_bind_int64(statement_, index, value);
  return *this;
}

Statement& Statement::Bind(int index, uint64_t value) {
  return Bind(index, static_cast<int64_t>(value));
}

Statement& Statement::Bind(int index, double value) {
  sqlite3_bind_double(statement_, index, value);
  return *this;
}

Statement& Statement::Bind(int index, const std::string& bytes) {
  sqlite3_bind_blob64(statement_, index, bytes.data(), bytes.size(), SQLITE_TRANSIENT);
  return *this;
}

absl::Status Statement::Run() {
  if (!status_.ok()) return status_;
  REIN_RETURN_IF_ERROR(database_->Begin());
  while (Next()) {
  }
  sqlite3_reset(statement_);
  return status_;
}

bool Statement::Next() {
  if (!status_.ok()) return false;
  int code = sqlite3_step(statement_);
  if (code == SQLITE_ROW) return true;
  if (code != SQLITE_DONE) status_ = database_->Error(code, sqlite3_sql(statement_));
  return false;
}

uint64_t Statement::Unsigned(int column) const {
  return static_cast<uint64_t>(sqlite3_column_int64(statement_, column));
}

double Statement::Double(int column) const { return sqlite3_column_double(statement_, column); }

std::string Statement::Bytes(int column) const {
  const void* bytes = sqlite3_column_blob(statement_, column);
  if (bytes == nullptr) return "";
  return std::string(static_cast<const char*>(bytes),
                     static_cast<size_t>(sqlite3_column_bytes(statement_, column)));
}

absl::StatusOr<std::unique_ptr<Database>> Database::Open(const std::string& path, bool durable) {
  sqlite3* handle = nullptr;
  int code =
      sqlite3_open_v2(path.c_str(), &handle,
                      SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, nullptr);
  auto database = std::unique_ptr<Database>(new Database(handle));
  if (code != SQLITE_OK) return database->Error(code, absl::StrCat("open ", path));
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

Database::~Database() {
  Rollback();
  sqlite3_close(handle_);
}

Statement Database::Prepare(const std::string& sql) {
  sqlite3_stmt* statement = nullptr;
  int code =
      sqlite3_prepare_v2(handle_, sql.c_str(), static_cast<int>(sql.size()), &statement, nullptr);
  return Statement(this, statement, code == SQLITE_OK ? absl::OkStatus() : Error(code, sql));
}

absl::Status Database::Execute(const std::string& sql) {
  int code = sqlite3_exec(handle_, sql.c_str(), nullptr, nullptr, nullptr);
  return code == SQLITE_OK ? absl::OkStatus() : Error(code, sql);
}

absl::Status Database::Begin() {
  if (in_transaction_) return absl::OkStatus();
  REIN_RETURN_IF_ERROR(Execute("BEGIN IMMEDIATE"));
  in_transaction_ = true;
  return absl::OkStatus();
}

absl::Status Database::Commit() {
  if (!in_transaction_) return absl::OkStatus();
  if (abandoned_) return absl::OkStatus();  // what was written is seen by this process alone
  REIN_RETURN_IF_ERROR(Execute("COMMIT"));
  in_transaction_ = false;
  return absl::OkStatus();
}

void Database::Rollback() {
  if (!in_transaction_) return;
  sqlite3_exec(handle_, "ROLLBACK", nullptr, nullptr, nullptr);
  in_transaction_ = false;
}

void Database::Abandon() { abandoned_ = true; }

absl::Status Database::Error(int code, const std::string& doing) const {
  std::string text = absl::StrCat("store: ", sqlite3_errmsg(handle_), " (", doing, ")");
  switch (code & 0xff) {
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

}  // namespace rein::services

#include "services/controller/postgres_connection.h"

#include <bit>
#include <cerrno>
#include <fstream>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include <libpq-fe.h>
#include <poll.h>

#include "common/status/status_macros.h"

namespace rein::services {
namespace {

constexpr absl::Duration kAnswerDeadline = absl::Seconds(30);
constexpr unsigned kInt8Type = 20, kFloat8Type = 701, kKnownByPlace = 0;  // pg_type.dat; 0: the server infers it

// PostgreSQL's binary format is big-endian.
std::string BigEndian(uint64_t value) {
  std::string bytes(8, '\0');
  for (int i = 0; i < 8; ++i) bytes[static_cast<size_t>(i)] = static_cast<char>(value >> (8 * (7 - i)));
  return bytes;
}

uint64_t FromBigEndian(const char* bytes, int count) {
  // The sign goes on above a shorter number.
  uint64_t value = count > 1 && (bytes[0] & 0x80) != 0 ? ~uint64_t{0} : 0;
  for (int i = 0; i < count; ++i) value = (value << 8) | static_cast<uint8_t>(bytes[i]);
  return value;
}

// ? becomes $1, $2, ...; no SQL here has a ? in a text.
std::string Numbered(const std::string& sql) {
  std::string numbered;
  int next = 1;
  for (char c : sql) {
    if (c == '?') {
      absl::StrAppend(&numbered, "$", next++);
    } else {
      numbered += c;
    }
  }
  return numbered;
}

absl::StatusCode CodeOf(absl::string_view state) {
  if (state == kReplacedState) return absl::StatusCode::kFailedPrecondition;
  if (state == kCommittedState) return absl::StatusCode::kAlreadyExists;
  // Connection trouble; too many sessions; a server that stops, starts, or became a standby.
  if (absl::StartsWith(state, "08") || state == "53300" || state == "25006") return absl::StatusCode::kUnavailable;
  if (absl::StartsWith(state, "57P")) return absl::StatusCode::kUnavailable;
  if (absl::StartsWith(state, "53")) return absl::StatusCode::kResourceExhausted;
  if (absl::StartsWith(state, "23")) return absl::StatusCode::kAlreadyExists;
  if (absl::StartsWith(state, "28") || state == "42501") return absl::StatusCode::kPermissionDenied;
  if (absl::StartsWith(state, "3D")) return absl::StatusCode::kNotFound;
  if (absl::StartsWith(state, "XX001") || absl::StartsWith(state, "XX002")) return absl::StatusCode::kDataLoss;
  return absl::StatusCode::kInternal;
}

// Why a connection could not be made: libpq keeps no SQLSTATE then, only the server's words.
absl::StatusCode CodeOfRefusal(const std::string& words) {
  for (const char* wrong : {"password", "authentication", "no pg_hba.conf entry", "certificate", "root.crt", "role \""}) {
    if (absl::StrContains(words, wrong)) return absl::StatusCode::kPermissionDenied;
  }
  if (absl::StrContains(words, "database \"")) return absl::StatusCode::kNotFound;
  return absl::StatusCode::kUnavailable;
}

std::string OneLine(const char* words) {
  std::string text(absl::StripAsciiWhitespace(words == nullptr ? "" : words));
  for (char& c : text) c = c == '\n' ? ' ' : c;
  return text;
}

}  // namespace

PostgresRows::PostgresRows(PostgresRows&& other) noexcept
    : result_(std::exchange(other.result_, nullptr)), row_(other.row_) {}
PostgresRows::~PostgresRows() { PQclear(result_); }

bool PostgresRows::Next() { return ++row_ < PQntuples(result_); }

uint64_t PostgresRows::Unsigned(int column) const {
  return FromBigEndian(PQgetvalue(result_, row_, column), PQgetlength(result_, row_, column));
}

double PostgresRows::Double(int column) const {
  if (PQgetlength(result_, row_, column) != 8) return 0;  // NULL
  return std::bit_cast<double>(FromBigEndian(PQgetvalue(result_, row_, column), 8));
}

std::string PostgresRows::Bytes(int column) const {
  return std::string(PQgetvalue(result_, row_, column), static_cast<size_t>(PQgetlength(result_, row_, column)));
}

uint64_t PostgresRows::changed() const {
  const char* count = PQcmdTuples(result_);
  return *count == '\0' ? 0 : std::stoull(count);
}

absl::StatusOr<std::unique_ptr<PostgresConnection>> PostgresConnection::Open(const PostgresAddress& address,
                                                                             const std::string& name,
                                                                             bool durable) {
  std::string password;
  if (!address.password_file.empty()) {
    std::ifstream in(address.password_file);  // each time anew: it may have been changed
    std::getline(in, password);
  }
  // What stands before the URL (as dbname) is a default, what stands behind it wins. A host that does not answer
  // is given up soon.
  const char* keys[] = {"connect_timeout", "keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout",
                        "target_session_attrs", "dbname", "client_encoding", "application_name",
                        password.empty() ? nullptr : "password", nullptr};
  const char* values[] = {"5", "5", "2", "3", "15000", "read-write", address.url.c_str(), "UTF8", name.c_str(),
                          password.c_str(), nullptr};
  pg_conn* raw = PQconnectdbParams(keys, values, /*expand_dbname=*/1);
  if (raw == nullptr) return absl::ResourceExhaustedError("store: no memory for a connection");
  auto session = std::unique_ptr<PostgresConnection>(new PostgresConnection(raw, address.shown));
  if (PQstatus(raw) != CONNECTION_OK) {
    const std::string words = OneLine(PQerrorMessage(raw));
    return absl::Status(CodeOfRefusal(words), absl::StrCat("the store at ", address.shown, ": ", words));
  }
  PQsetnonblocking(raw, 1);
  PQenterPipelineMode(raw);
  PQsetNoticeProcessor(raw, [](void*, const char*) {}, nullptr);  // "relation exists, skipping"
  // A session whose controller vanished must not hold its locks for hours.
  REIN_ASSIGN_OR_RETURN(
      auto results,
      session->Run({{absl::StrCat("SELECT set_config('synchronous_commit', CASE WHEN ",
                                  durable ? "current_setting('synchronous_commit') = 'remote_apply' THEN 'remote_apply' ELSE 'on'"
                                          : "TRUE THEN 'off'",
                                  " END, FALSE), set_config('tcp_keepalives_idle', '5', FALSE), "
                                  "set_config('tcp_keepalives_interval', '2', FALSE), "
                                  "set_config('tcp_keepalives_count', '3', FALSE)")},
                    {"SELECT current_setting('fsync')"}}));
  if (durable && results[1].Next() && results[1].Bytes(0) != "on") {
    return absl::FailedPreconditionError(absl::StrCat(
        "the store at ", address.shown, ": the server runs with fsync=off, what it commits is lost with its machine: "
        "set fsync=on in postgresql.conf"));
  }
  return session;
}

PostgresConnection::~PostgresConnection() { PQfinish(connection_); }

absl::Status PostgresConnection::Lost(const std::string& why) {
  sql_state_.clear();
  return absl::UnavailableError(absl::StrCat("the store at ", shown_, ": ", why));
}

absl::Status PostgresConnection::ErrorOf(const pg_result* result) {
  const char* state = PQresultErrorField(result, PG_DIAG_SQLSTATE);
  sql_state_ = state == nullptr ? "" : state;
  const char* words = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
  if (state == nullptr) return Lost(OneLine(PQresultErrorMessage(result)));
  if (sql_state_ == kReplacedState) return absl::FailedPreconditionError(words == nullptr ? "" : words);
  return absl::Status(CodeOf(sql_state_), absl::StrCat("the store at ", shown_, ": ", words == nullptr ? "" : words,
                                                       " (SQLSTATE ", sql_state_, ")"));
}

absl::Status PostgresConnection::Send(const SqlStatement& statement, std::vector<const std::string*>& expected) {
  const size_t count = statement.values.size();
  std::vector<unsigned> types;
  std::vector<std::string> numbers(count);
  std::vector<const char*> values;
  std::vector<int> lengths, formats(count, 1);
  for (size_t i = 0; i < count; ++i) {
    const SqlValue& value = statement.values[i];
    const std::string* bytes = &numbers[i];
    if (const auto* number = std::get_if<int64_t>(&value)) {
      numbers[i] = BigEndian(static_cast<uint64_t>(*number));
      types.push_back(kInt8Type);
    } else if (const auto* real = std::get_if<double>(&value)) {
      numbers[i] = BigEndian(std::bit_cast<uint64_t>(*real));
      types.push_back(kFloat8Type);
    } else {
      bytes = &std::get<std::string>(value);
      types.push_back(kKnownByPlace);
    }
    values.push_back(bytes->data());
    lengths.push_back(static_cast<int>(bytes->size()));
  }
  auto known = prepared_.find(statement.sql);
  std::string name = known == prepared_.end() ? "" : known->second;
  bool sent = true;
  if (name.empty()) {
    name = absl::StrCat("s", next_name_++);
    sent = PQsendPrepare(connection_, name.c_str(), Numbered(statement.sql).c_str(), static_cast<int>(count),
                         types.data()) == 1;
    prepared_[statement.sql] = name;  // taken back by Run() when it fails
    expected.push_back(&statement.sql);
  }
  sent = sent && PQsendQueryPrepared(connection_, name.c_str(), static_cast<int>(count), values.data(), lengths.data(),
                                     formats.data(), /*resultFormat=*/1) == 1;
  expected.push_back(nullptr);
  return sent ? absl::OkStatus() : Lost(OneLine(PQerrorMessage(connection_)));
}

absl::StatusOr<pg_result*> PostgresConnection::Take(absl::Time until) {
  while (PQisBusy(connection_)) {
    int unsent = PQflush(connection_);
    if (unsent < 0) return Lost(OneLine(PQerrorMessage(connection_)));
    pollfd ready = {.fd = PQsocket(connection_), .events = static_cast<short>(POLLIN | (unsent > 0 ? POLLOUT : 0))};
    const absl::Duration left = until - absl::Now();
    if (left <= absl::ZeroDuration()) {
      return Lost(absl::StrCat("no answer within ", absl::FormatDuration(kAnswerDeadline)));
    }
    if (poll(&ready, 1, static_cast<int>(absl::ToInt64Milliseconds(left)) + 1) < 0 && errno != EINTR) {
      return Lost("the connection cannot be waited for");
    }
    if ((ready.revents & (POLLIN | POLLERR | POLLHUP)) != 0 && PQconsumeInput(connection_) == 0) {
      return Lost(OneLine(PQerrorMessage(connection_)));
    }
  }
  return PQgetResult(connection_);
}

absl::StatusOr<std::vector<PostgresRows>> PostgresConnection::Run(const std::vector<SqlStatement>& statements) {
  sql_state_.clear();
  if (PQstatus(connection_) != CONNECTION_OK) return Lost("the connection is closed");
  std::vector<const std::string*> expected;  // SQL of a preparation; null: an execution
  for (const SqlStatement& statement : statements) REIN_RETURN_IF_ERROR(Send(statement, expected));
  if (PQpipelineSync(connection_) != 1) return Lost(OneLine(PQerrorMessage(connection_)));
  const absl::Time until = absl::Now() + kAnswerDeadline;
  std::vector<PostgresRows> results;
  absl::Status failed;
  bool between = false;
  for (size_t next = 0;;) {
    REIN_ASSIGN_OR_RETURN(pg_result * result, Take(until));
    if (result == nullptr) {  // the end of one statement's answer
      const bool closed = PQstatus(connection_) != CONNECTION_OK;
      if (closed || std::exchange(between, true)) return Lost(OneLine(PQerrorMessage(connection_)));
      continue;
    }
    between = false;
    PostgresRows rows(result);
    const ExecStatusType status = PQresultStatus(result);
    if (status == PGRES_PIPELINE_SYNC) break;
    const bool good = status == PGRES_COMMAND_OK || status == PGRES_TUPLES_OK;
    if (!good && status != PGRES_PIPELINE_ABORTED && failed.ok()) failed = ErrorOf(result);
    if (next == expected.size()) return Lost("more answers than questions");
    const std::string* preparation = expected[next++];
    if (!good && preparation != nullptr) prepared_.erase(*preparation);
    if (preparation == nullptr) results.push_back(std::move(rows));
  }
  if (!failed.ok()) return failed;
  return results;
}

}  // namespace rein::services

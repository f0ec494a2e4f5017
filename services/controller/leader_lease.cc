#include "services/controller/leader_lease.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

#include "common/status/status_macros.h"
#include "services/controller/postgres_database.h"
#include "services/controller/postgres_schema.h"

namespace rein::services {
namespace {

constexpr absl::Duration kRetryPause = absl::Milliseconds(500);
constexpr char kSession[] = "rein-lease";

}  // namespace

absl::StatusOr<std::unique_ptr<LeaderLease>> LeaderLease::Open(PostgresAddress address, std::string name,
                                                               absl::Duration lease, absl::Duration patience) {
  auto opened = std::unique_ptr<LeaderLease>(new LeaderLease(std::move(address), std::move(name), lease));
  const absl::Time until = absl::Now() + patience;
  std::vector<SqlStatement> batch = {{"BEGIN", {}}};
  for (const char* statement : kPostgresLeaderTables) batch.push_back({statement, {}});
  batch.push_back({"COMMIT", {}});
  while (true) {
    absl::Status status = opened->Connect();
    if (status.ok()) status = opened->connection_->Run(batch).status();
    if (status.ok()) return opened;
    opened->connection_.reset();
    if (!absl::IsUnavailable(status) || absl::Now() + kRetryPause > until) return status;
    std::this_thread::sleep_for(absl::ToChronoMilliseconds(kRetryPause));
  }
}

LeaderLease::~LeaderLease() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stop_ = true;
    changed_.notify_all();
  }
  if (thread_.joinable()) thread_.join();
  if (epoch_ > 0) Renew(absl::ZeroDuration()).IgnoreError();  // untold, it is found out when the lease is over
}

absl::Status LeaderLease::Connect() {
  if (connection_ != nullptr) return absl::OkStatus();
  REIN_ASSIGN_OR_RETURN(connection_, PostgresConnection::Open(server_, kSession));
  return absl::OkStatus();
}

absl::StatusOr<bool> LeaderLease::TryTake() {
  absl::StatusOr<bool> taken = IsHeld(/*lock=*/false);
  if (taken.ok()) taken = *taken ? false : Take();
  // A transaction that did not reach its end goes with its session.
  if (!taken.ok()) connection_.reset();
  return taken;
}

absl::StatusOr<bool> LeaderLease::IsHeld(bool lock) {
  REIN_RETURN_IF_ERROR(Connect());
  REIN_ASSIGN_OR_RETURN(auto found, connection_->Run({{absl::StrCat("SELECT epoch, holder, address, lease_end > clock_timestamp() "
                                                                    "FROM controller_lease", lock ? " FOR UPDATE" : ""),
                                                       {}}}));
  PostgresRows& row = found.back();
  if (!row.Next()) return absl::DataLossError("store: controller_lease has no row");
  std::lock_guard<std::mutex> guard(mutex_);
  holder_ = {.name = row.Bytes(1), .address = row.Bytes(2), .epoch = row.Unsigned(0)};
  return row.Unsigned(3) != 0;
}

absl::StatusOr<bool> LeaderLease::Take() {
  REIN_RETURN_IF_ERROR(connection_->Run({{"BEGIN", {}}}).status());
  REIN_ASSIGN_OR_RETURN(bool held, IsHeld(/*lock=*/true));
  if (held) {  // by one that was faster
    REIN_RETURN_IF_ERROR(connection_->Run({{"ROLLBACK", {}}}).status());
    return false;
  }
  REIN_RETURN_IF_ERROR(connection_->Run({{kEndLeaderSessions, {LeaderSession(holder().epoch)}}}).status());
  REIN_ASSIGN_OR_RETURN(
      auto taken, connection_->Run({{"UPDATE controller_leader SET epoch = epoch + 1, commits = 0 RETURNING epoch", {}}}));
  if (!taken.back().Next()) return absl::DataLossError("store: controller_leader has no row");
  const uint64_t epoch = taken.back().Unsigned(0);
  REIN_RETURN_IF_ERROR(
      connection_
          ->Run({{"UPDATE controller_lease SET epoch = ?, holder = ?, address = '', "
                  "lease_end = clock_timestamp() + ? * INTERVAL '1 second'",
                  {static_cast<int64_t>(epoch), name_, absl::ToDoubleSeconds(lease_)}},
                 {"COMMIT", {}}})
          .status());
  epoch_ = epoch;
  return true;
}

LeaseHolder LeaderLease::holder() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return holder_;
}

absl::Status LeaderLease::NotLeader() const {
  const LeaseHolder leader = holder();
  return absl::UnavailableError(absl::StrCat(
      "NOT_LEADER: this controller waits; ",
      leader.name.empty() ? "nobody leads yet"
                          : absl::StrCat("the leader is ", leader.name, leader.address.empty() ? "" : " at ",
                                         leader.address, " (epoch ", leader.epoch, ")")));
}

void LeaderLease::SetAddress(const std::string& address) {
  std::lock_guard<std::mutex> lock(mutex_);
  address_ = address;
  changed_.notify_all();
}

void LeaderLease::KeepRenewing(std::function<void(const absl::Status&)> on_lost) {
  thread_ = std::thread([this, on_lost = std::move(on_lost)] { Run(on_lost); });
}

absl::Status LeaderLease::Renew(absl::Duration length) {
  REIN_RETURN_IF_ERROR(Connect());
  std::string address;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    address = told_ = address_;
  }
  auto renewed = connection_->Run({{"UPDATE controller_lease SET address = ?, "
                                    "lease_end = clock_timestamp() + ? * INTERVAL '1 second' WHERE epoch = ?",
                                    {address, absl::ToDoubleSeconds(length), static_cast<int64_t>(epoch_)}}});
  if (!renewed.ok()) {
    connection_.reset();
    return renewed.status();
  }
  if (renewed->back().changed() == 1) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat("NOT_LEADER: this controller (epoch ", epoch_, ") was replaced by another"));
}

void LeaderLease::Run(const std::function<void(const absl::Status&)>& on_lost) {
  while (true) {
    absl::Status renewed = Renew(lease_);
    if (absl::IsFailedPrecondition(renewed)) {
      on_lost(renewed);
      return;
    }
    std::unique_lock<std::mutex> lock(mutex_);
    const absl::Duration pause = renewed.ok() ? lease_ / 3 : std::min(kRetryPause, lease_ / 3);
    changed_.wait_for(lock, absl::ToChronoNanoseconds(pause), [&] { return stop_ || (renewed.ok() && told_ != address_); });
    if (stop_) return;
  }
}

}  // namespace rein::services

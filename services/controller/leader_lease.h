// LeaderLease decides which of several controllers on one PostgreSQL store leads: the one that holds the lease, by the
// database's clock. Taking it raises the controller_epoch, which ends the writes of whoever led before.
//
//   REIN_ASSIGN_OR_RETURN(auto lease, LeaderLease::Open(address, "controller-1", absl::Seconds(10)));
//   REIN_ASSIGN_OR_RETURN(bool mine, lease->TryTake());   // again and again, until it is true
//   lease->KeepRenewing(...);
//   auto store = Store::Open({... .epoch = lease->epoch()});
//
// One thread calls TryTake() and KeepRenewing(); from then on the lease is renewed on a thread of its own, every third
// of its length. Destruction gives the lease back, so that another takes over at once.

#pragma once

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "services/controller/postgres_connection.h"

namespace rein::services {

// Who leads, as another controller sees it.
struct LeaseHolder {
  std::string name;     // empty: nobody yet
  std::string address;  // of its gRPC port
  uint64_t epoch = 0;
};

class LeaderLease {
 public:
  // Makes the tables when they are absent. Waits up to `patience` for the server; UNAVAILABLE then, other errors at
  // once.
  static absl::StatusOr<std::unique_ptr<LeaderLease>> Open(PostgresAddress address, std::string name,
                                                           absl::Duration lease,
                                                           absl::Duration patience = absl::Seconds(30));
  ~LeaderLease();

  // True: this controller leads now. False: holder() does. A server that is away is UNAVAILABLE: ask again.
  absl::StatusOr<bool> TryTake();
  LeaseHolder holder() const;
  uint64_t epoch() const { return epoch_; }
  // The answer to calls while another leads.
  absl::Status NotLeader() const;

  // Where others reach this controller; known once it listens.
  void SetAddress(const std::string& address);
  // `on_lost` is called once, from the lease's thread, when another controller leads.
  void KeepRenewing(std::function<void(const absl::Status&)> on_lost);

 private:
  LeaderLease(PostgresAddress server, std::string name, absl::Duration lease)
      : server_(std::move(server)), name_(std::move(name)), lease_(lease) {}
  absl::Status Connect();
  // Whether somebody has the lease now; keeps who.
  absl::StatusOr<bool> IsHeld(bool lock);
  absl::StatusOr<bool> Take();
  // FAILED_PRECONDITION when the lease is another's.
  absl::Status Renew(absl::Duration length);
  void Run(const std::function<void(const absl::Status&)>& on_lost);

  const PostgresAddress server_;
  const std::string name_;
  const absl::Duration lease_;
  std::unique_ptr<PostgresConnection> connection_;
  uint64_t epoch_ = 0;

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::string address_, told_;  // told: to the database
  LeaseHolder holder_;
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace rein::services

// LeaseClient keeps an actor registered with the controller for as long as it lives: it registers,
// sends a heartbeat every third of the lease, and registers anew when the lease or the controller
// was lost. The FenceGuard follows, so that calls for an epoch that is over are refused. Of several
// controllers it follows the one that leads.
//
//   auto lease = LeaseClient::Start(options, guard, clock, log);   // returns at once
//
// Owns one thread. Destruction stops it within a second or so.

#pragma once

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "absl/time/time.h"

#include "common/rpc/address_list.h"
#include "common/rpc/fence_guard.h"
#include "common/sync/clock.h"
#include "common/telemetry/log.h"
#include "rein/v1/controller.pb.h"

namespace rein::services {

// What an actor tells with each heartbeat.
struct ActorReport {
  v1::PolicyVersion version;                      // weights in use
  std::string load;                               // a few words
  std::optional<v1::TrainerStatusReply> trainer;  // trainer only; sent when it registers
};

struct LeaseOptions {
  std::string controller;        // host:port, several with commas
  v1::RegisterRequest identity;  // role, name, address, device, build
  // Called from the lease's thread; must be quick.
  std::function<ActorReport()> report;
  // Called when an epoch was lost and a new one is in force: what was begun under the old one
  // should be dropped. May be empty.
  std::function<void(uint64_t actor_epoch)> on_new_epoch;
};

class LeaseClient {
 public:
  // `guard`, `clock` and `log` must outlive the client.
  static std::unique_ptr<LeaseClient> Start(LeaseOptions options, rpc::FenceGuard& guard,
                                            const sync::Clock& clock, telemetry::Log& log);
  ~LeaseClient();

  // False when there is no registration after `timeout`.
  bool WaitUntilRegistered(absl::Duration timeout);

 private:
  class Connection;

  LeaseClient(LeaseOptions options, rpc::FenceGuard& guard, const sync::Clock& clock,
              telemetry::Log& log);
  void Run();
  // Returns the pause before the next call.
  absl::Duration RegisterOnce();
  absl::Duration HeartbeatOnce();
  void SetRegistered(bool registered);
  absl::Duration CallDeadline() const;
  // After a call that failed: the next controller is asked.
  void TryNext(const absl::Status& failure);

  const LeaseOptions options_;
  rpc::FenceGuard& guard_;
  const sync::Clock& clock_;
  telemetry::Log& log_;
  rpc::AddressList addresses_;
  std::unique_ptr<Connection> connection_;
  absl::Duration lease_ = absl::ZeroDuration();
  bool unreachable_told_ = false;

  std::mutex mutex_;
  std::condition_variable changed_;
  bool stop_ = false;
  bool registered_ = false;
  std::thread thread_;
};

}  // namespace rein::services

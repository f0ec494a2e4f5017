// ActorRegistry knows the running service processes: it issues their epochs and watches their
// leases.
//
// An actor is READY while its heartbeats come, and LOST when its lease ran out: from then on its
// epoch is over for good, and it has to register again. Epochs come from the store and never
// repeat. The ranks of a trainer share their fate: when one is lost, so is rank 0, and it cannot come
// back before the other did. Actors of one group work together, and on one job; each is of one, `default` where it says
// none, and its name is its own among those of all groups. After a restart of the controller the stored actors have one lease to be heard of; their
// epochs go on. Not thread-safe.

#pragma once

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "common/sync/clock.h"
#include "rein/v1/controller.pb.h"
#include "services/controller/store.h"

namespace rein::services {

class ActorRegistry {
 public:
  // Under the store's controller_epoch. All arguments must outlive the registry.
  static absl::StatusOr<std::unique_ptr<ActorRegistry>> Open(Store& store, const sync::Clock& clock,
                                                             absl::Duration lease);

  uint64_t controller_epoch() const { return controller_epoch_; }

  // INVALID_ARGUMENT for a role that does not exist, or a group that is no name; ALREADY_EXISTS when another process, still
  // alive, took the name after this one had it, or has it in another group; UNAVAILABLE to rank 0 while another rank is
  // lost. Commits.
  absl::StatusOr<v1::RegisterReply> Register(const v1::RegisterRequest& request);
  // NOT_FOUND for an unknown name, FAILED_PRECONDITION for an epoch that is over.
  absl::StatusOr<v1::HeartbeatReply> Heartbeat(const v1::HeartbeatRequest& request);

  // Marks actors whose lease ran out; returns when the next one will.
  absl::Time ExpireLeases();

  // By role and name; all that were ever registered and not replaced.
  std::vector<v1::Actor> Actors() const;
  // Those of one group.
  std::vector<v1::Actor> ActorsOf(const std::string& group) const;
  // Every group that was ever registered, and whether it has a trainer that is READY.
  std::map<std::string, bool> Groups() const;

 private:
  struct Entry {
    ActorRecord record;
    absl::Time lease_end;
    absl::Time heard;
    std::set<std::string> superseded;  // incarnations that had this name before
  };

  std::vector<v1::Actor> Select(const std::function<bool(const v1::Actor&)>& wanted) const;
  // One of the ranks at `peers` that is lost; null: there is none.
  const v1::Actor* LostRankOf(const google::protobuf::RepeatedPtrField<std::string>& peers) const;

  ActorRegistry(Store& store, const sync::Clock& clock, absl::Duration lease)
      : store_(store), clock_(clock), lease_(lease) {}

  Store& store_;
  const sync::Clock& clock_;
  const absl::Duration lease_;
  uint64_t controller_epoch_ = 0;
  std::map<std::string, Entry> entries_;
};

inline constexpr char kActorReady[] = "READY";
inline constexpr char kActorLost[] = "LOST";

}  // namespace rein::services

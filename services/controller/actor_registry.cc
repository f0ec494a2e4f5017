#include "services/controller/actor_registry.h"

#include <algorithm>
#include <array>
#include <tuple>

#include "absl/strings/str_cat.h"

#include "common/config/name.h"
#include "common/status/status_macros.h"

namespace rein::services {
namespace {

constexpr std::array<const char*, 4> kRoles = {"trainer", "rollout", "reference", "reward"};

}  // namespace

absl::StatusOr<std::unique_ptr<ActorRegistry>> ActorRegistry::Open(Store& store,
                                                                   const sync::Clock& clock,
                                                                   absl::Duration lease) {
  auto registry = std::unique_ptr<ActorRegistry>(new ActorRegistry(store, clock, lease));
  REIN_ASSIGN_OR_RETURN(registry->controller_epoch_, store.ControllerEpoch());
  REIN_ASSIGN_OR_RETURN(std::vector<ActorRecord> actors, store.ReadActors());
  for (ActorRecord& actor : actors) {
    const std::string name = actor.actor.name();
    if (actor.actor.group().empty()) actor.actor.set_group(config::kDefaultGroup);  // of an older store
    registry->entries_[name] = {
        .record = std::move(actor), .lease_end = clock.Now() + lease, .heard = clock.Now()};
  }
  REIN_RETURN_IF_ERROR(store.Commit());
  return registry;
}

absl::StatusOr<v1::RegisterReply> ActorRegistry::Register(const v1::RegisterRequest& request) {
  if (std::find(kRoles.begin(), kRoles.end(), request.role()) == kRoles.end()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "role: wants trainer, rollout, reference or reward, got '", request.role(), "'"));
  }
  if (request.name().empty() || request.address().empty()) {
    return absl::InvalidArgumentError("an actor needs a name and an address");
  }
  const std::string group = request.group().empty() ? config::kDefaultGroup : request.group();
  if (!config::IsName(group)) {
    return absl::InvalidArgumentError(absl::StrCat("group: wants ", config::kNameRule, "; got '", group, "'"));
  }
  if (const v1::Actor* lost = LostRankOf(request.peers())) {
    return absl::UnavailableError(absl::StrCat("rank ", lost->rank(), " of this trainer (", lost->name(), " at ",
                                               lost->address(), ") is lost: it has to be back first"));
  }
  auto found = entries_.find(request.name());
  if (found != entries_.end()) {
    Entry& holder = found->second;
    bool alive = holder.record.actor.state() == kActorReady && clock_.Now() <= holder.lease_end;
    if (alive && holder.superseded.count(request.incarnation()) > 0) {
      return absl::AlreadyExistsError(absl::StrCat(
          "another process has taken the name ", request.name(), ": give this one its own --name"));
    }
    if (alive && holder.record.actor.group() != group && holder.record.incarnation != request.incarnation()) {
      return absl::AlreadyExistsError(absl::StrCat(request.name(), " is an actor of group ", holder.record.actor.group(), " at ",
                                                   holder.record.actor.address(), ": give this one of group ", group,
                                                   " its own --name"));
    }
    if (holder.record.incarnation != request.incarnation()) {
      holder.superseded.insert(holder.record.incarnation);
    }
  }
  ActorRecord record{.incarnation = request.incarnation()};
  v1::Actor& actor = record.actor;
  actor.set_role(request.role());
  actor.set_name(request.name());
  actor.set_address(request.address());
  actor.set_device(request.device());
  actor.set_device_id(request.device_id());
  actor.set_admin_address(request.admin_address());
  actor.set_rank(request.rank());
  *actor.mutable_peers() = request.peers();
  *actor.mutable_build() = request.build();
  actor.set_group(group);
  actor.set_state(kActorReady);
  REIN_RETURN_IF_ERROR(store_.Transact([&]() -> absl::Status {
    REIN_ASSIGN_OR_RETURN(uint64_t epoch, store_.Increment("actor_epoch"));
    actor.set_epoch(epoch);
    return store_.PutActor(record);
  }));
  Entry& entry = entries_[request.name()];
  entry.record = std::move(record);
  entry.heard = clock_.Now();
  entry.lease_end = entry.heard + lease_;
  v1::RegisterReply reply;
  reply.set_actor_epoch(entry.record.actor.epoch());
  reply.set_controller_epoch(controller_epoch_);
  reply.set_lease_seconds(absl::ToDoubleSeconds(lease_));
  return reply;
}

absl::StatusOr<v1::HeartbeatReply> ActorRegistry::Heartbeat(const v1::HeartbeatRequest& request) {
  auto found = entries_.find(request.name());
  if (found == entries_.end()) {
    return absl::NotFoundError(absl::StrCat("no actor ", request.name(), " is registered"));
  }
  Entry& entry = found->second;
  v1::Actor& actor = entry.record.actor;
  if (actor.epoch() != request.actor_epoch()) {
    return absl::FailedPreconditionError(
        absl::StrCat("actor epoch ", request.actor_epoch(), " of ", request.name(),
                     " is over, the current one is ", actor.epoch()));
  }
  if (actor.state() != kActorReady || clock_.Now() > entry.lease_end) {
    return absl::FailedPreconditionError(
        absl::StrCat("the lease of ", request.name(), LostRankOf(actor.peers()) == nullptr ? "" : ", or of another rank of it,",
                     " ran out: register again"));
  }
  entry.heard = clock_.Now();
  entry.lease_end = entry.heard + lease_;
  *actor.mutable_version() = request.version();
  actor.set_load(request.load());
  v1::HeartbeatReply reply;
  reply.set_controller_epoch(controller_epoch_);
  return reply;
}

const v1::Actor* ActorRegistry::LostRankOf(
    const google::protobuf::RepeatedPtrField<std::string>& peers) const {
  if (peers.empty()) return nullptr;
  for (const auto& [name, entry] : entries_) {
    const v1::Actor& actor = entry.record.actor;
    if (actor.rank() == 0 || std::find(peers.begin(), peers.end(), actor.address()) == peers.end()) continue;
    if (actor.state() != kActorReady || clock_.Now() > entry.lease_end) return &actor;
  }
  return nullptr;
}

absl::Time ActorRegistry::ExpireLeases() {
  absl::Time next = absl::InfiniteFuture();
  for (auto& [name, entry] : entries_) {
    if (entry.record.actor.state() != kActorReady) continue;
    if (clock_.Now() > entry.lease_end) {
      entry.record.actor.set_state(kActorLost);
    } else {
      next = std::min(next, entry.lease_end + absl::Milliseconds(1));
    }
  }
  for (auto& [name, entry] : entries_) {
    v1::Actor& actor = entry.record.actor;
    if (actor.state() == kActorReady && LostRankOf(actor.peers()) != nullptr) actor.set_state(kActorLost);
  }
  return next;
}

std::vector<v1::Actor> ActorRegistry::Actors() const {
  return Select([](const v1::Actor&) { return true; });
}

std::vector<v1::Actor> ActorRegistry::ActorsOf(const std::string& group) const {
  return Select([&](const v1::Actor& actor) { return actor.group() == group; });
}

std::map<std::string, bool> ActorRegistry::Groups() const {
  std::map<std::string, bool> groups;
  for (const auto& [name, entry] : entries_) {
    const v1::Actor& actor = entry.record.actor;
    groups[actor.group()] |= actor.role() == "trainer" && actor.rank() == 0 && actor.state() == kActorReady;
  }
  return groups;
}

std::vector<v1::Actor> ActorRegistry::Select(const std::function<bool(const v1::Actor&)>& wanted) const {
  std::vector<v1::Actor> actors;
  for (const auto& [name, entry] : entries_) {
    if (!wanted(entry.record.actor)) continue;
    v1::Actor& actor = actors.emplace_back(entry.record.actor);
    actor.set_silent_seconds(absl::ToDoubleSeconds(clock_.Now() - entry.heard));
  }
  std::stable_sort(actors.begin(), actors.end(), [](const v1::Actor& a, const v1::Actor& b) {
    return std::tie(a.role(), a.name()) < std::tie(b.role(), b.name());
  });
  return actors;
}

}  // namespace rein::services

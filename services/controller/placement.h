// Placement says which waiting job runs on which group of actors: pure functions of what is known.
//
// A group runs one job at a time. Jobs have their turn in order of arrival; a job that cannot begin holds up none behind
// it.
// * A job that names a group (placement.group) runs there, once the group is free and has a trainer.
// * Any other runs on the first group, by name, that is free and has a trainer.
// * A job that ran when the controller stopped goes on at once on the group that it had, before all others, trainer or
//   not: what its actors hold of it is there. Pausing and resuming it lets it move.

#pragma once

#include <map>
#include <optional>
#include <string>

#include "services/controller/store.h"

namespace rein::services {

struct ActorGroup {
  bool has_trainer = false;         // that is READY
  const JobRecord* runs = nullptr;  // null: it is free
};

using ActorGroups = std::map<std::string, ActorGroup>;  // by name

// Where a queued job can begin now.
std::optional<std::string> GroupFor(const JobRecord& job, const ActorGroups& groups);

// What a queued job waits for; empty when it can begin. Of other jobs only those of the same owner are named.
std::string WhyItWaits(const JobRecord& job, const ActorGroups& groups);

}  // namespace rein::services

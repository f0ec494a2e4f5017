// TraceOnActors has the actors that hold a policy compute one sequence, layer by layer; see debug.proto.

#pragma once

#include <vector>

#include "rein/v1/controller.pb.h"

namespace rein::services {

// Asks those of `actors` that are READY trainers, rollout services or references, all at the same time, and waits, two
// minutes at most. One that fails has its error in its place.
std::vector<v1::ActorTrace> TraceOnActors(const std::vector<v1::Actor>& actors, const v1::TraceLayersRequest& request);

}  // namespace rein::services

// The words of weight sync that the engine shares.

#pragma once

#include "common/weights/weight_receiver.h"

namespace rein::rollout {

using PolicyVersion = weights::Version;
using InFlight = weights::InFlight;

}  // namespace rein::rollout

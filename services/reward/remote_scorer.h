// MakeRemoteScorer lets reward rules of the kind `remote` ask other reward services.

#pragma once

#include "reward/scoring/scorer.h"

namespace rein::services {

// Keeps one connection for each address. Calls are retried while the peer is away, until their
// timeout; then they are UNAVAILABLE or DEADLINE_EXCEEDED, and the message names the address.
reward::RemoteScorer MakeRemoteScorer();

}  // namespace rein::services

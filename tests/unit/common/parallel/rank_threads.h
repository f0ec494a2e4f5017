// Runs a body once for each rank of a TCP group, every rank on a thread of its own.

#pragma once

#include <functional>

#include "common/parallel/process_group.h"

namespace rein::parallel {

// Fails the test when a rank cannot join.
void RunRanks(int size, const std::function<void(ProcessGroup&)>& body);

}  // namespace rein::parallel

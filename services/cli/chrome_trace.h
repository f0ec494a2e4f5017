// The calls of a job as a timeline: the JSON of Chrome's trace viewer, which Perfetto reads too (Trace Event Format).

#pragma once

#include <string>

#include "rein/v1/controller.pb.h"

namespace rein::cli {

// One process for each actor; calls that overlap stand in lanes of their own. Times are microseconds from the first
// call. The controller has a lane with the updates, each from the end of the one before it.
std::string ChromeTrace(const v1::ListUpdatesReply& updates);

}  // namespace rein::cli

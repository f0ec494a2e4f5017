// The commands that compare and sum up: metrics, compare, top, rollouts --diff. Each prints its result and returns
// the exit code.

#pragma once

#include <string>
#include <vector>

#include "services/cli/controller_client.h"
#include "services/cli/job_commands.h"
#include "services/cli/output.h"

namespace rein::cli {

struct MetricsFlags {
  std::string name;  // default: the newest
  std::vector<std::string> keys;
  bool csv = false;
  unsigned last = 0;  // 0: all
};

int RunMetrics(ControllerClient& client, const MetricsFlags& flags, Format format);
int RunCompare(ControllerClient& client, const std::string& a, const std::string& b, unsigned window);
// On a terminal again and again, until Ctrl-C; else once.
int RunTop(ControllerClient& client, bool once, Format format);
struct TraceFlags {
  std::string name;   // default: the newest
  std::string file;   // default: JOB-trace.json
  unsigned last = 0;  // updates; 0: all
};

// Writes who did what when, as Chrome and Perfetto show it.
int RunTrace(ControllerClient& client, const TraceFlags& flags);
// Has the job's actors compute the rollout that `flags` names, and compares them.
int RunDebugMismatch(ControllerClient& client, const RolloutsFlags& flags, Format format);
// The prompts of update `flags.update` against another update of the job, or against another job.
int RunRolloutsDiff(ControllerClient& client, const RolloutsFlags& flags, const std::string& other);

}  // namespace rein::cli

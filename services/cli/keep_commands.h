// The commands about what stays on disk: checkpoints, exports, deleting jobs. Each prints its result and returns the
// exit code.

#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "services/cli/controller_client.h"
#include "services/cli/output.h"

namespace rein::cli {

int RunCheckpointList(ControllerClient& client, const std::string& job, Format format);
int RunCheckpointDelete(ControllerClient& client, const std::string& job, unsigned number, bool yes);

struct ExportFlags {
  std::string job;
  unsigned checkpoint = 0;  // 0: the result, else the newest checkpoint
  std::string to;           // a folder that is not there yet
  std::string format = "hf";
};
// Copies the Hugging Face files of a result or checkpoint: without the optimizer. Needs the folder on this machine.
int RunExport(ControllerClient& client, const ExportFlags& flags);

int RunDelete(ControllerClient& client, const std::vector<std::string>& jobs, bool yes);

struct CollectFlags {
  std::string older_than = "30d";  // of the end of a job
  std::vector<std::string> states = {"failed", "cancelled"};
  bool dry_run = false, yes = false;
};
// Deletes what `retention` of jobs says is due, and jobs that ended so long ago; never what another starts from.
int RunCollect(ControllerClient& client, const CollectFlags& flags);

// "90s", "15m", "12h", "30d". INVALID_ARGUMENT for another text.
absl::StatusOr<absl::Duration> ParseAge(const std::string& text);

}  // namespace rein::cli

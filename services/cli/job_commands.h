// The commands that talk to the controller. Each prints its result and returns the exit code.

#pragma once

#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"

#include "services/cli/connection.h"
#include "services/cli/controller_client.h"
#include "services/cli/output.h"

namespace rein::cli {

struct SubmitFlags {
  std::string file;  // "-": standard input
  std::vector<std::string> overrides;
  std::string name;        // replaces the job's name
  std::string request_id;  // empty: a new one
  bool validate_only = false;
  bool wait = false;
};

// `name`; where it is empty, the newest job that has not ended, else the newest.
absl::StatusOr<std::string> JobOrNewest(ControllerClient& client, const std::string& name);

int RunSubmit(ControllerClient& client, const SubmitFlags& flags, Format format);
// Without a controller: checks against the files of this machine.
int RunValidate(const absl::StatusOr<Connection>& connection, const SubmitFlags& flags, Format format);
int RunExplain(const std::string& key);

int RunGet(ControllerClient& client, const std::string& what, const std::string& name,
           Format format);
int RunDescribe(ControllerClient& client, const std::string& name, Format format);
int RunCancel(ControllerClient& client, const std::string& name);
int RunPause(ControllerClient& client, const std::string& name);
int RunResume(ControllerClient& client, const std::string& name,
              const std::vector<std::string>& overrides);
// An empty name: the newest job that has not ended, else the newest.
int RunWatch(ControllerClient& client, const std::string& name, Format format);

struct WaitFlags {
  std::string name;
  std::string what = "end";  // end, state=PAUSED, update=20
  absl::Duration timeout;
};

// The exit code of the end is the job's; of another thing, kExitOk, or kExitFailed when the job ended without it.
int RunWait(ControllerClient& client, const WaitFlags& flags);

struct LogsFlags {
  std::string name;
  bool follow = false;
  unsigned tail = 0;  // 0: all
  std::string since;  // 90s, 10m, 2h, 1d; empty: all
};

int RunLogs(ControllerClient& client, const LogsFlags& flags);

struct RolloutsFlags {
  std::string name;
  unsigned long update = 0;
  std::string sort;
  unsigned limit = 0;
  bool tokens = false;
  std::optional<unsigned long> prompt;
  std::optional<unsigned> sibling;
  std::optional<double> min_reward, max_reward;
  std::string contains, finish;

  bool Filtered() const {
    return prompt || sibling || min_reward || max_reward || !contains.empty() || !finish.empty();
  }
};

int RunRollouts(ControllerClient& client, const RolloutsFlags& flags, Format format);
// `connection` may be an error: then only this program's.
int RunVersion(const absl::StatusOr<Connection>& connection, Format format);

}  // namespace rein::cli

// Context says where the services of this machine run; `rein up` writes it, every other command
// reads it.

#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace rein::cli {

struct Context {
  std::string controller;  // host:port
  std::string admin;       // host:port of the page
  std::string state;       // folder
  int supervisor = 0;      // process id
};

// $REIN_HOME, else ~/.local/share/rein.
std::string HomeFolder();

// HOME/context.json.
std::string ContextFile();

// NOT_FOUND when nothing is up.
absl::StatusOr<Context> ReadContext();
absl::Status WriteContext(const Context& context);
void RemoveContext();

// `flag`, else $REIN_SERVER, else the context's. UNAVAILABLE says how to start one.
absl::StatusOr<std::string> FindServer(const std::string& flag);

}  // namespace rein::cli

// Context says where the services of this machine run; `rein up` writes it, every other command
// reads it.

#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace rein::cli {

struct Context {
  std::string controller;  // host:port, several with commas
  std::string admin;       // host:port of the page
  std::string state;       // folder
  std::string tls;         // folder of certificates; empty: plaintext
  int supervisor = 0;      // process id

  // Of the page.
  std::string Url() const { return (tls.empty() ? "http://" : "https://") + admin; }
};

// $REIN_HOME, else ~/.local/share/rein.
std::string HomeFolder();

// HOME/context.json.
std::string ContextFile();

// NOT_FOUND when nothing is up.
absl::StatusOr<Context> ReadContext();
absl::Status WriteContext(const Context& context);
void RemoveContext();


}  // namespace rein::cli

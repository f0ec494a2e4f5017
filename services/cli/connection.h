// Connection is where the controller is and how this user proves who they are. It comes from flags, else
// from the environment, else from a named context, else from `rein up` on this machine.
//
// Named contexts stand in ${XDG_CONFIG_HOME:-~/.config}/rein/config.yaml:
//
//   current: lab
//   contexts:
//     lab: {server: rein.lab:7000, ca: /etc/rein/lab-ca.crt, token_file: /etc/rein/lab.token}

#pragma once

#include <map>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace rein::cli {

struct Connection {
  std::string server;      // host:port, several with commas
  std::string tls;         // folder with ca.crt, tls.crt, tls.key of this user; empty: none
  std::string ca;          // PEM of the authority, for a user with a token alone
  std::string token_file;  // its first line is the token; never a flag: others can read those
};

struct Contexts {
  std::string current;  // empty: that of `rein up`
  std::map<std::string, Connection> known;
};

std::string ContextsFile();
// None at all when the file is absent. INVALID_ARGUMENT names file and key.
absl::StatusOr<Contexts> ReadContexts();
absl::Status WriteContexts(const Contexts& contexts);

// `flags` win, then $REIN_SERVER $REIN_TLS $REIN_CA $REIN_TOKEN_FILE, then the context `name` ($REIN_CONTEXT,
// else the current one), then `rein up`. UNAVAILABLE says how to get a server.
absl::StatusOr<Connection> FindConnection(const Connection& flags, const std::string& name);

// Makes channels of this process use it, and returns the token ("" without one).
absl::StatusOr<std::string> UseConnection(const Connection& connection);

// PEM of the authority that channels of this process trust; empty: they are plaintext.
std::string TrustedAuthority(const Connection& connection);

}  // namespace rein::cli

// TlsFolder names the files that a process proves itself with: ca.crt, tls.crt and tls.key of one
// folder. cert-manager writes a Secret with these three names; `rein certs init` writes them too.
//
//   REIN_ASSIGN_OR_RETURN(TlsFolder tls, OpenTlsFolder("/etc/rein/tls"));
//
// Whoever uses the files reads them again when they change, so that certificates are renewed without
// a restart.

#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace rein::tls {

struct TlsFolder {
  std::string authority;    // PEM of the authorities that peers must come from
  std::string certificate;  // PEM of this process's certificate, and what leads to the authority
  std::string key;          // PEM of its private key
};

// NOT_FOUND for a file that is missing, INVALID_ARGUMENT for one that is no PEM, a key of another
// certificate, a certificate of another authority, or one whose time is over or has not come.
absl::StatusOr<TlsFolder> OpenTlsFolder(const std::string& folder);

// True when only this machine reaches `address` ("host:port").
bool IsLoopback(const std::string& address);

// INVALID_ARGUMENT for an address that others reach, without TLS. `flag` names it: "--listen".
absl::Status CheckReach(const std::string& flag, const std::string& address, bool has_tls);

}  // namespace rein::tls

// Makes an authority and the certificates of a deployment: what `rein certs init` writes.
//
//   DIR/ca.crt  DIR/ca.key                 the authority; its key signs, keep it off the machines
//   DIR/ROLE/{ca.crt,tls.crt,tls.key}      of each service, as --tls wants them
//   DIR/user/NAME/{ca.crt,tls.crt,tls.key} of each user
//
// EC P-256 keys. Names that a server may be reached by stand in its certificate, beside localhost,
// 127.0.0.1 and ::1; who it is stands there as a URI (common/access/caller.h).

#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"

#include "common/access/caller.h"

namespace rein::cli {

// Whose certificate.
struct Subject {
  std::string folder;              // below DIR: "trainer", "user/ada"
  std::string uri;                 // access::ServiceUri() or UserUri()
  std::vector<std::string> hosts;  // DNS names, "*" as the first label too, and IP addresses
};

// Makes the authority in `folder`, unless there is one: then that one goes on.
absl::Status MakeAuthority(const std::string& folder, absl::Duration valid, absl::Time now);

// Signs a new key and certificate of `subject`; replaces what is there in one instant (the folder is a link).
absl::Status MakeCertificate(const std::string& folder, const Subject& subject, absl::Duration valid,
                             absl::Time now);

// The Secrets of the manifests as YAML: rein-NAME-tls for each role and user below `folder`.
absl::Status PrintSecrets(const std::string& folder, std::string& yaml);

}  // namespace rein::cli

// Caller is who stands at the other end of a call: nobody knows, a service by its certificate, or a
// user by a certificate or a token.
//
// A certificate says who it is by a URI among its alternative names:
//
//   spiffe://rein/service/ROLE            a service: controller, trainer, rollout, reference, reward
//   spiffe://rein/user/TENANT/NAME/ROLE   a user: viewer, submitter, admin

#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace rein::access {

// Each may do what those before it may.
enum class UserRole { kNone, kViewer, kSubmitter, kAdmin };

// INVALID_ARGUMENT for a name that is none.
absl::StatusOr<UserRole> ParseUserRole(const std::string& name);
std::string NameOf(UserRole role);

struct Caller {
  // The connection is not secured: only this machine reaches the port, and callers are not told apart.
  bool local = false;
  std::string service;  // role of a service, else empty
  std::string user;     // name of a user, else empty
  std::string tenant;   // whose jobs the user sees
  UserRole role = UserRole::kNone;

  bool known() const { return local || !service.empty() || !user.empty(); }
  // Sees and changes jobs of every tenant.
  bool sees_all() const { return local || !service.empty() || role == UserRole::kAdmin; }
  // For logs: "user ada", "service trainer", "local", "nobody".
  std::string Name() const;
};

// By the URIs of a verified certificate; nobody when none is ours.
Caller CallerOfCertificate(const std::vector<std::string>& uris);

// The URI of a service's certificate.
std::string ServiceUri(const std::string& role);
std::string UserUri(const std::string& tenant, const std::string& name, UserRole role);

}  // namespace rein::access

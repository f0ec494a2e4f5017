#include "common/access/caller.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace rein::access {
namespace {

constexpr char kTrust[] = "spiffe://rein/";

}  // namespace

absl::StatusOr<UserRole> ParseUserRole(const std::string& name) {
  if (name == "viewer") return UserRole::kViewer;
  if (name == "submitter") return UserRole::kSubmitter;
  if (name == "admin") return UserRole::kAdmin;
  return absl::InvalidArgumentError(
      absl::StrCat("a role is viewer, submitter or admin, got '", name, "'"));
}

std::string NameOf(UserRole role) {
  switch (role) {
    case UserRole::kNone:
      return "none";
    case UserRole::kViewer:
      return "viewer";
    case UserRole::kSubmitter:
      return "submitter";
    case UserRole::kAdmin:
      return "admin";
  }
  return "none";
}

std::string Caller::Name() const {
  if (!service.empty()) return absl::StrCat("service ", service);
  if (!user.empty()) return absl::StrCat("user ", user);
  return local ? "local" : "nobody";
}

Caller CallerOfCertificate(const std::vector<std::string>& uris) {
  for (const std::string& uri : uris) {
    if (uri.rfind(kTrust, 0) != 0) continue;
    std::vector<std::string> parts = absl::StrSplit(uri.substr(sizeof(kTrust) - 1), '/');
    Caller caller;
    if (parts.size() == 2 && parts[0] == "service" && !parts[1].empty()) {
      caller.service = parts[1];
      return caller;
    }
    if (parts.size() != 4 || parts[0] != "user" || parts[2].empty()) continue;
    absl::StatusOr<UserRole> role = ParseUserRole(parts[3]);
    if (!role.ok()) continue;
    caller.tenant = parts[1];
    caller.user = parts[2];
    caller.role = *role;
    return caller;
  }
  return {};
}

std::string ServiceUri(const std::string& role) { return absl::StrCat(kTrust, "service/", role); }

std::string UserUri(const std::string& tenant, const std::string& name, UserRole role) {
  return absl::StrCat(kTrust, "user/", tenant, "/", name, "/", NameOf(role));
}

}  // namespace rein::access

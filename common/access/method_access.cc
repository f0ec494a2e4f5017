#include "common/access/method_access.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

#include "rein/v1/annotations.pb.h"

namespace rein::access {
namespace {

constexpr char kHealth[] = "/grpc.health.v1.Health/";

// Null when there is none, or it says nothing of access.
const v1::MethodAccess* AccessOf(const std::string& path) {
  const size_t slash = path.rfind('/');
  if (path.empty() || path[0] != '/' || slash == 0) return nullptr;
  const google::protobuf::MethodDescriptor* method =
      google::protobuf::DescriptorPool::generated_pool()->FindMethodByName(
          absl::StrCat(path.substr(1, slash - 1), ".", path.substr(slash + 1)));
  if (method == nullptr || !method->options().HasExtension(v1::access)) return nullptr;
  return &method->options().GetExtension(v1::access);
}

}  // namespace

absl::Status CheckUser(UserRole least, const Caller& caller) {
  if (caller.local) return absl::OkStatus();
  if (!caller.known()) {
    return absl::UnauthenticatedError("who calls is not known: a token or a certificate is wanted");
  }
  if (!caller.user.empty() && caller.role >= least) return absl::OkStatus();
  return absl::PermissionDeniedError(
      absl::StrCat(caller.Name(), caller.user.empty() ? "" : absl::StrCat(" (", NameOf(caller.role), ")"),
                   " may not: a user with the role ", NameOf(least), " may"));
}

absl::Status CheckAccess(const std::string& path, const Caller& caller) {
  if (caller.local || path.rfind(kHealth, 0) == 0) return absl::OkStatus();
  if (!caller.known()) {
    return absl::UnauthenticatedError("who calls is not known: a token or a certificate is wanted");
  }
  const v1::MethodAccess* access = AccessOf(path);
  if (access == nullptr) return absl::PermissionDeniedError(absl::StrCat(path, " is open to nobody"));
  if (!caller.service.empty()) {
    const auto& allowed = access->services();
    if (std::find(allowed.begin(), allowed.end(), caller.service) != allowed.end()) {
      return absl::OkStatus();
    }
  } else if (!access->user().empty()) {
    absl::StatusOr<UserRole> least = ParseUserRole(access->user());
    if (least.ok()) return CheckUser(*least, caller);
  }
  std::string who = absl::StrJoin(access->services(), ", ");
  if (!access->user().empty()) absl::StrAppend(&who, who.empty() ? "" : " and ", "users");
  return absl::PermissionDeniedError(
      absl::StrCat(caller.Name(), " may not call ", path, ": it is for ", who));
}

}  // namespace rein::access

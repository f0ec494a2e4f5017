#include "common/rpc/access_gate.h"

#include <vector>

#include <grpc/grpc_security_constants.h>

#include "common/access/method_access.h"
#include "common/rpc/grpc_status.h"

namespace rein::rpc {
namespace {

constexpr char kBearer[] = "Bearer ";
constexpr char kInsecure[] = "insecure";  // how gRPC calls a plaintext connection

std::string Text(const grpc::string_ref& text) { return {text.data(), text.size()}; }

}  // namespace

absl::StatusOr<access::Caller> AccessGate::Find(
    const std::multimap<grpc::string_ref, grpc::string_ref>& metadata,
    const grpc::AuthContext& connection) const {
  auto header = metadata.find("authorization");
  if (header != metadata.end()) {
    const std::string value = Text(header->second);
    if (value.rfind(kBearer, 0) != 0) {
      return absl::UnauthenticatedError("authorization: wants 'Bearer TOKEN'");
    }
    if (tokens_ == nullptr) return absl::UnauthenticatedError("no token is known here");
    return tokens_->Find(value.substr(sizeof(kBearer) - 1));
  }
  std::vector<std::string> uris;
  for (const grpc::string_ref& uri : connection.FindPropertyValues(GRPC_PEER_URI_PROPERTY_NAME)) {
    uris.push_back(Text(uri));
  }
  return access::CallerOfCertificate(uris);
}

grpc::Status AccessGate::Admit(const std::multimap<grpc::string_ref, grpc::string_ref>& metadata,
                               const grpc::AuthContext& connection) {
  auto path = metadata.find(":path");
  const std::string method = path == metadata.end() ? "" : Text(path->second);
  absl::StatusOr<access::Caller> caller = Find(metadata, connection);
  absl::Status allowed = caller.ok() ? access::CheckAccess(method, *caller) : caller.status();
  if (allowed.ok() && limit_ != nullptr) allowed = limit_->Take(*caller);
  if (!allowed.ok() && on_refused_) {
    on_refused_(method, caller.ok() ? *caller : access::Caller(), allowed);
  }
  return ToGrpc(allowed);
}

access::Caller AccessGate::CallerOf(const grpc::ServerContext& context) const {
  std::shared_ptr<const grpc::AuthContext> connection = context.auth_context();
  bool secured = false;
  if (connection != nullptr) {
    for (const grpc::string_ref& type :
         connection->FindPropertyValues(GRPC_TRANSPORT_SECURITY_TYPE_PROPERTY_NAME)) {
      secured = secured || Text(type) != kInsecure;
    }
  }
  if (!secured) {
    access::Caller caller;
    caller.local = true;
    return caller;
  }
  absl::StatusOr<access::Caller> caller = Find(context.client_metadata(), *connection);
  return caller.ok() ? *caller : access::Caller();
}

}  // namespace rein::rpc

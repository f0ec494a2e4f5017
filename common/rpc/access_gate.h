// AccessGate decides, before a method runs, whether its caller may call it: who the caller is comes from
// the certificate or the token, who may comes from the protos.
//
// A token stands in the metadata "authorization: Bearer TOKEN" and counts before a certificate.
// Thread-safe.

#pragma once

#include <functional>
#include <string>

#include "absl/status/status.h"
#include <grpcpp/security/auth_metadata_processor.h>
#include <grpcpp/server_context.h>

#include "common/access/call_limit.h"
#include "common/access/caller.h"
#include "common/access/user_tokens.h"

namespace rein::rpc {

class AccessGate {
 public:
  // Told of each refusal, from any thread; must be quick. `caller` is what could be found out.
  using OnRefused = std::function<void(const std::string& path, const access::Caller& caller,
                                       const absl::Status& refusal)>;

  // `tokens` (null: none) and `limit` (null: none) must outlive the gate; `on_refused` may be empty.
  explicit AccessGate(access::UserTokens* tokens, OnRefused on_refused = nullptr, access::CallLimit* limit = nullptr)
      : tokens_(tokens), limit_(limit), on_refused_(std::move(on_refused)) {}

  // UNAUTHENTICATED or PERMISSION_DENIED; RESOURCE_EXHAUSTED when the caller's tenant calls too often.
  grpc::Status Admit(const std::multimap<grpc::string_ref, grpc::string_ref>& metadata,
                     const grpc::AuthContext& connection);

  // Who called a method that runs; local where the connection is not secured.
  access::Caller CallerOf(const grpc::ServerContext& context) const;

 private:
  absl::StatusOr<access::Caller> Find(
      const std::multimap<grpc::string_ref, grpc::string_ref>& metadata,
      const grpc::AuthContext& connection) const;

  access::UserTokens* const tokens_;
  access::CallLimit* const limit_;
  const OnRefused on_refused_;
};

}  // namespace rein::rpc

// Credentials says how servers and channels are secured: the one place where that is decided.
//
//   Credentials::UseForProcess(Credentials::Tls(files, gate, ClientCertificates::kRequired));
//
// From then on every server and channel of the process uses them; before, and without, everything is
// plaintext, which only ports of this machine may be (tls::CheckReach). Files that change are used for
// new connections within a second; those that stand are not broken.

#pragma once

#include <memory>
#include <string>
#include <utility>

#include <grpcpp/security/credentials.h>
#include <grpcpp/security/server_credentials.h>

#include "common/rpc/access_gate.h"
#include "common/tls/tls_folder.h"

namespace rein::rpc {

// What a server wants of callers. One that is shown must be valid in either case.
enum class ClientCertificates { kOptional, kRequired };

class Credentials {
 public:
  // No encryption and no authentication.
  static Credentials Plaintext();
  // Both sides show certificates; the server's name must be the host that was asked for. Each call to a
  // server passes `gate` before its method runs; null: a client only.
  static Credentials Tls(const tls::TlsFolder& files, std::shared_ptr<AccessGate> gate,
                         ClientCertificates wanted);
  // A client without a certificate, which trusts the authorities of this PEM file.
  static Credentials TrustOnly(const std::string& authority_file);

  // Plaintext until UseForProcess().
  static Credentials OfProcess();
  // Before the first server or channel is made.
  static void UseForProcess(Credentials credentials);

  bool secure() const { return secure_; }
  const std::shared_ptr<grpc::ServerCredentials>& server() const { return server_; }
  const std::shared_ptr<grpc::ChannelCredentials>& channel() const { return channel_; }

 private:
  Credentials(bool secure, std::shared_ptr<grpc::ServerCredentials> server,
              std::shared_ptr<grpc::ChannelCredentials> channel)
      : secure_(secure), server_(std::move(server)), channel_(std::move(channel)) {}

  bool secure_ = false;
  std::shared_ptr<grpc::ServerCredentials> server_;
  std::shared_ptr<grpc::ChannelCredentials> channel_;
};

}  // namespace rein::rpc

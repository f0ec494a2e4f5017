#include "common/rpc/credentials.h"

#include <mutex>
#include <optional>

#include <grpcpp/security/tls_certificate_provider.h>
#include <grpcpp/security/tls_credentials_options.h>

namespace rein::rpc {
namespace {

using grpc::experimental::FileWatcherCertificateProvider;

constexpr unsigned kLookEverySeconds = 1;

// gRPC asks a processor that it may keep for itself.
class GateProcessor final : public grpc::AuthMetadataProcessor {
 public:
  explicit GateProcessor(std::shared_ptr<AccessGate> gate) : gate_(std::move(gate)) {}
  bool IsBlocking() const override { return false; }
  grpc::Status Process(const InputMetadata& metadata, grpc::AuthContext* context, OutputMetadata*,
                       OutputMetadata*) override {
    return gate_->Admit(metadata, *context);
  }

 private:
  std::shared_ptr<AccessGate> gate_;
};

struct ProcessCredentials {
  std::mutex mutex;
  std::optional<Credentials> credentials;
};

ProcessCredentials& OfThisProcess() {
  static ProcessCredentials& credentials = *new ProcessCredentials;  // outlives every channel
  return credentials;
}

}  // namespace

Credentials Credentials::Plaintext() {
  return Credentials(false, grpc::InsecureServerCredentials(), grpc::InsecureChannelCredentials());
}

Credentials Credentials::Tls(const tls::TlsFolder& files, std::shared_ptr<AccessGate> gate,
                             ClientCertificates wanted) {
  auto provider = std::make_shared<FileWatcherCertificateProvider>(
      files.key, files.certificate, files.authority, kLookEverySeconds);
  grpc::experimental::TlsChannelCredentialsOptions client;
  client.set_certificate_provider(provider);
  client.watch_root_certs();
  client.watch_identity_key_cert_pairs();
  std::shared_ptr<grpc::ServerCredentials> server_credentials;
  if (gate != nullptr) {
    grpc::experimental::TlsServerCredentialsOptions server(provider);
    server.watch_root_certs();
    server.watch_identity_key_cert_pairs();
    server.set_cert_request_type(wanted == ClientCertificates::kRequired
                                     ? GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY
                                     : GRPC_SSL_REQUEST_CLIENT_CERTIFICATE_AND_VERIFY);
    server_credentials = grpc::experimental::TlsServerCredentials(server);
    server_credentials->SetAuthMetadataProcessor(std::make_shared<GateProcessor>(std::move(gate)));
  }
  return Credentials(true, std::move(server_credentials),
                     grpc::experimental::TlsCredentials(client));
}

Credentials Credentials::TrustOnly(const std::string& authority_file) {
  grpc::experimental::TlsChannelCredentialsOptions client;
  client.set_certificate_provider(
      std::make_shared<FileWatcherCertificateProvider>(authority_file, kLookEverySeconds));
  client.watch_root_certs();
  return Credentials(true, nullptr, grpc::experimental::TlsCredentials(client));
}

Credentials Credentials::OfProcess() {
  ProcessCredentials& process = OfThisProcess();
  std::lock_guard<std::mutex> lock(process.mutex);
  return process.credentials.has_value() ? *process.credentials : Plaintext();
}

void Credentials::UseForProcess(Credentials credentials) {
  ProcessCredentials& process = OfThisProcess();
  std::lock_guard<std::mutex> lock(process.mutex);
  process.credentials = std::move(credentials);
}

}  // namespace rein::rpc

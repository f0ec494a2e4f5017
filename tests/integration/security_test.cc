// Who comes in: every RPC of every service against callers that must not reach it, over real TLS.

#include <filesystem>
#include <fstream>
#include <future>
#include <thread>

#include <gmock/gmock.h>
#include <grpcpp/generic/generic_stub.h>
#include <gtest/gtest.h>
#include <httplib.h>
#include <netinet/in.h>
#include <openssl/ssl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/access/call_limit.h"
#include "common/access/method_access.h"
#include "common/http/http_server.h"
#include "common/rpc/channel.h"
#include "common/rpc/grpc_status.h"
#include "common/rpc/server.h"
#include "rein/v1/controller.grpc.pb.h"
#include "rein/v1/chat.grpc.pb.h"
#include "rein/v1/debug.grpc.pb.h"
#include "rein/v1/reference.grpc.pb.h"
#include "rein/v1/reward.grpc.pb.h"
#include "rein/v1/rollout.grpc.pb.h"
#include "rein/v1/trainer.grpc.pb.h"
#include "rein/v1/weights.grpc.pb.h"
#include "services/cli/certificates.h"

namespace rein {
namespace {

namespace fs = std::filesystem;
using access::UserRole;
using ::testing::HasSubstr;

constexpr absl::Duration kDay = absl::Hours(24);

// The generated base classes answer UNIMPLEMENTED: whoever reads that has reached a method's body.
constexpr grpc::StatusCode kEntered = grpc::StatusCode::UNIMPLEMENTED;

class SecurityTest : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::path(testing::TempDir()) / "security_test";
    fs::remove_all(folder_);
    const absl::Time now = absl::Now();
    for (const char* authority : {"good", "other"}) {
      ASSERT_TRUE(cli::MakeAuthority(Path(authority), 30 * kDay, now).ok());
    }
    for (const char* role : {"controller", "trainer", "rollout", "reference", "reward"}) {
      Make("good", role, access::ServiceUri(role), kDay, now);
    }
    Make("other", "controller", access::ServiceUri("controller"), kDay, now);
    Make("good", "expired", access::ServiceUri("controller"), kDay, now - 2 * kDay);
    Make("good", "nobody", "https://elsewhere/", kDay, now);
    WriteTokens();
    gate_ = std::make_shared<rpc::AccessGate>(
        tokens_.get(), [this](const std::string&, const access::Caller&, const absl::Status&) { ++refused_; });
  }

  std::string Path(const std::string& name) { return (folder_ / name).string(); }

  void Make(const std::string& authority, const std::string& name, const std::string& uri,
            absl::Duration valid, absl::Time now) {
    absl::Status made = cli::MakeCertificate(Path(authority), {.folder = name, .uri = uri}, valid, now);
    ASSERT_TRUE(made.ok()) << made;
  }

  void WriteTokens() {
    std::vector<access::UserToken> known;
    for (UserRole role : {UserRole::kViewer, UserRole::kSubmitter, UserRole::kAdmin}) {
      token_[role] = access::NewToken();
      known.push_back({.user = access::NameOf(role), .tenant = "t", .role = role,
                       .sha256 = access::DigestOf(token_[role])});
    }
    expired_token_ = access::NewToken();
    known.push_back({.user = "late", .tenant = "t", .role = UserRole::kAdmin,
                     .sha256 = access::DigestOf(expired_token_), .expires = clock_.Now() - absl::Hours(1)});
    std::ofstream(Path("tokens.json")) << access::FormatUserTokens(known);
    tokens_ = *access::UserTokens::Open(Path("tokens.json"), clock_);
  }

  tls::TlsFolder Files(const std::string& name) {
    return {Path(name) + "/ca.crt", Path(name) + "/tls.crt", Path(name) + "/tls.key"};
  }

  std::unique_ptr<rpc::Server> Serve(rpc::ClientCertificates wanted,
                                     const std::string& certificate = "good/controller") {
    auto server = rpc::Server::Create(
        {.address = "127.0.0.1:0",
         .credentials = rpc::Credentials::Tls(Files(certificate), gate_, wanted),
         .reflection = true},
        {&chat_, &controller_, &debug_, &reference_, &reward_, &rollout_, &trainer_, &weights_});
    EXPECT_TRUE(server.ok()) << server.status();
    return *std::move(server);
  }

  rpc::Credentials Client(const std::string& name) {
    return rpc::Credentials::Tls(Files(name), nullptr, rpc::ClientCertificates::kRequired);
  }

  static grpc::Status Call(grpc::GenericStub& stub, const std::string& method, const std::string& token = "") {
    grpc::ClientContext context;
    rpc::SetDeadline(context, absl::Seconds(10));
    if (!token.empty()) context.AddMetadata("authorization", "Bearer " + token);
    grpc::Slice nothing;
    grpc::ByteBuffer request(&nothing, 1), reply;
    std::promise<grpc::Status> done;
    stub.UnaryCall(&context, method, {}, &request, &reply,
                   [&done](grpc::Status status) { done.set_value(std::move(status)); });
    return done.get_future().get();
  }

  // Every method of every service, as gRPC names it.
  std::vector<const google::protobuf::MethodDescriptor*> Methods() {
    std::vector<const google::protobuf::MethodDescriptor*> methods;
    const auto* pool = google::protobuf::DescriptorPool::generated_pool();
    for (const char* name : {"Chat", "Controller", "Debug", "Reference", "Reward", "Rollout", "Trainer", "Weight"}) {
      const auto* service = pool->FindServiceByName(std::string("rein.v1.") + name + "Service");
      for (int i = 0; i < service->method_count(); ++i) methods.push_back(service->method(i));
    }
    methods.push_back(pool->FindMethodByName("grpc.reflection.v1.ServerReflection.ServerReflectionInfo"));
    EXPECT_GE(methods.size(), 43);
    return methods;
  }
  static std::string PathOf(const google::protobuf::MethodDescriptor* method) {
    return "/" + method->service()->full_name() + "/" + method->name();
  }

  fs::path folder_;
  sync::RealClock clock_;
  std::map<UserRole, std::string> token_;
  std::string expired_token_;
  std::unique_ptr<access::UserTokens> tokens_;
  std::shared_ptr<rpc::AccessGate> gate_;
  std::atomic<int> refused_ = 0;
  v1::ChatService::Service chat_;
  v1::ControllerService::Service controller_;
  v1::DebugService::Service debug_;
  v1::ReferenceService::Service reference_;
  v1::RewardService::Service reward_;
  v1::RolloutService::Service rollout_;
  v1::TrainerService::Service trainer_;
  v1::WeightService::Service weights_;
};

// Connections that end in the handshake: no certificate, another authority, one whose time is over, and a
// client that speaks no TLS at all.
TEST_F(SecurityTest, ConnectionsWithoutAGoodCertificateReachNoMethod) {
  auto server = Serve(rpc::ClientCertificates::kRequired);
  const std::pair<const char*, rpc::Credentials> callers[] = {
      {"no certificate", rpc::Credentials::TrustOnly(Path("good/ca.crt"))},
      {"another authority's",
       rpc::Credentials::Tls({Path("good/ca.crt"), Path("other/controller/tls.crt"), Path("other/controller/tls.key")},
                             nullptr, rpc::ClientCertificates::kRequired)},
      {"expired", Client("good/expired")},
      {"plaintext", rpc::Credentials::Plaintext()}};
  for (const auto& [what, credentials] : callers) {
    grpc::GenericStub stub(rpc::Connect(server->address(), credentials));
    for (const auto* method : Methods()) {
      grpc::Status status = Call(stub, PathOf(method), token_[UserRole::kAdmin]);
      EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE)
          << what << " " << PathOf(method) << ": " << status.error_message();
    }
  }
}

// A client does not talk to a server of another authority, or to one under another name.
TEST_F(SecurityTest, AServerMustBeTheOneThatWasMeant) {
  auto server = Serve(rpc::ClientCertificates::kOptional, "other/controller");
  grpc::GenericStub stub(rpc::Connect(server->address(), Client("good/trainer")));
  EXPECT_EQ(Call(stub, "/rein.v1.ControllerService/Register").error_code(), grpc::StatusCode::UNAVAILABLE);
  auto good = Serve(rpc::ClientCertificates::kOptional);
  const std::string port = good->address().substr(good->address().rfind(':'));
  grpc::GenericStub misnamed(rpc::Connect("127.0.0.2" + port, Client("good/trainer")));  // not in the certificate
  EXPECT_EQ(Call(misnamed, "/rein.v1.ControllerService/Register").error_code(), grpc::StatusCode::UNAVAILABLE);
  grpc::GenericStub named(rpc::Connect("localhost" + port, Client("good/trainer")));
  EXPECT_EQ(Call(named, "/rein.v1.ControllerService/Register").error_code(), kEntered);
}

TEST_F(SecurityTest, EachServiceReachesItsMethodsAndNoOther) {
  auto server = Serve(rpc::ClientCertificates::kRequired);
  for (const char* role : {"controller", "trainer", "rollout", "reference", "reward", "nobody"}) {
    grpc::GenericStub stub(rpc::Connect(server->address(), Client(std::string("good/") + role)));
    for (const auto* method : Methods()) {
      const auto& allowed = method->options().GetExtension(v1::access).services();
      const bool may = std::find(allowed.begin(), allowed.end(), role) != allowed.end();
      const int before = refused_;
      grpc::Status status = Call(stub, PathOf(method));
      grpc::StatusCode wanted = may ? kEntered
                                : std::string(role) == "nobody" ? grpc::StatusCode::UNAUTHENTICATED
                                                                : grpc::StatusCode::PERMISSION_DENIED;
      EXPECT_EQ(status.error_code(), wanted) << role << " " << PathOf(method) << ": " << status.error_message();
      EXPECT_EQ(refused_ - before, may ? 0 : 1) << PathOf(method);
    }
  }
}

TEST_F(SecurityTest, EachUserReachesWhatTheirRoleMay) {
  auto server = Serve(rpc::ClientCertificates::kOptional);
  grpc::GenericStub stub(rpc::Connect(server->address(), rpc::Credentials::TrustOnly(Path("good/ca.crt"))));
  for (const auto* method : Methods()) {
    const std::string& least = method->options().GetExtension(v1::access).user();
    const bool answers = method->service()->name() == "ServerReflection";  // which is the server's own
    const grpc::StatusCode entered = answers ? grpc::StatusCode::OK : kEntered;
    for (const auto& [role, token] : token_) {
      const bool may = !least.empty() && role >= *access::ParseUserRole(least);
      EXPECT_EQ(Call(stub, PathOf(method), token).error_code(), may ? entered : grpc::StatusCode::PERMISSION_DENIED)
          << access::NameOf(role) << " " << PathOf(method);
    }
    for (const std::string& token : {std::string(), expired_token_, access::NewToken(), std::string("x"),
                                     access::DigestOf(token_[UserRole::kAdmin])}) {
      grpc::Status status = Call(stub, PathOf(method), token);
      EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAUTHENTICATED) << PathOf(method) << " '" << token << "'";
      if (!token.empty()) {
        EXPECT_EQ(status.error_message().find(token), std::string::npos) << "a token in an error";
      }
    }
  }
}

// A wrong token is not made good by a certificate.
TEST_F(SecurityTest, ATokenCountsBeforeACertificate) {
  auto server = Serve(rpc::ClientCertificates::kRequired);
  grpc::GenericStub stub(rpc::Connect(server->address(), Client("good/trainer")));
  const char* path = "/rein.v1.ControllerService/Register";
  EXPECT_EQ(Call(stub, path).error_code(), kEntered);
  EXPECT_EQ(Call(stub, path, "wrong").error_code(), grpc::StatusCode::UNAUTHENTICATED);
}

// A tenant that calls without end is refused beyond its rate, before the method; another tenant's calls all come in.
TEST_F(SecurityTest, AFloodOfOneTenantIsRefusedAndLeavesTheOthersAlone) {
  const std::string flooding = access::NewToken(), calm = access::NewToken();
  std::ofstream(Path("two.json")) << access::FormatUserTokens(
      {{.user = "bob", .tenant = "physics", .role = UserRole::kViewer, .sha256 = access::DigestOf(flooding)},
       {.user = "ada", .tenant = "maths", .role = UserRole::kViewer, .sha256 = access::DigestOf(calm)}});
  tokens_ = *access::UserTokens::Open(Path("two.json"), clock_);
  access::CallLimit limit(clock_, {.per_second = 50, .at_once = 50});
  gate_ = std::make_shared<rpc::AccessGate>(tokens_.get(), nullptr, &limit);
  auto server = Serve(rpc::ClientCertificates::kOptional);
  const rpc::Credentials user = rpc::Credentials::TrustOnly(Path("good/ca.crt"));
  const char* path = "/rein.v1.ControllerService/ListJobs";
  std::atomic<bool> stop = false;
  std::atomic<int> entered = 0, refused = 0, others = 0;
  const absl::Time begin = absl::Now();
  std::vector<std::thread> flood;
  for (int i = 0; i < 4; ++i) {
    flood.emplace_back([&] {
      grpc::GenericStub stub(rpc::Connect(server->address(), user));
      while (!stop) {
        const grpc::StatusCode code = Call(stub, path, flooding).error_code();
        ++(code == kEntered ? entered : code == grpc::StatusCode::RESOURCE_EXHAUSTED ? refused : others);
      }
    });
  }
  grpc::GenericStub stub(rpc::Connect(server->address(), user));
  for (int i = 0; i < 60; ++i) {
    EXPECT_EQ(Call(stub, path, calm).error_code(), kEntered) << i;
    absl::SleepFor(absl::Milliseconds(25));
  }
  stop = true;
  for (std::thread& thread : flood) thread.join();
  EXPECT_LE(entered, 50 + 50 * absl::ToDoubleSeconds(absl::Now() - begin) + 1);
  EXPECT_GT(refused, entered);
  EXPECT_EQ(others, 0);
}

TEST_F(SecurityTest, OtherAddressesNeedTls) {
  auto open = rpc::Server::Create({.address = "0.0.0.0:0", .credentials = rpc::Credentials::Plaintext()}, {&reward_});
  EXPECT_TRUE(absl::IsInvalidArgument(open.status())) << open.status();
  EXPECT_THAT(std::string(open.status().message()), HasSubstr("give --tls FOLDER"));
  auto secured = rpc::Server::Create(
      {.address = "0.0.0.0:0",
       .credentials = rpc::Credentials::Tls(Files("good/reward"), gate_, rpc::ClientCertificates::kRequired)},
      {&reward_});
  EXPECT_TRUE(secured.ok()) << secured.status();
}

// On an HTTPS port: those that stop in the middle of a handshake, and those that stop after it in that of a request.
TEST_F(SecurityTest, SlowHttpsConnectionsHoldUpNobody) {
  http::HttpOptions options{.address = "127.0.0.1:0", .tls = Files("good/controller")};
  options.routes.push_back({"POST", "/echo", UserRole::kNone, [](const http::Request& request, http::Response& response) {
                              response.body = request.body;
                            }});
  auto server = http::HttpServer::Create(std::move(options));
  ASSERT_TRUE(server.ok()) << server.status();
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>((*server)->port()));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  const std::string greeting("\x16\x03\x01\x02", 4);  // of a TLS record that does not come
  SSL_CTX* context = SSL_CTX_new(TLS_client_method());
  std::vector<int> sockets;
  std::vector<SSL*> shaken;
  for (int i = 0; i < 200; ++i) {
    const int one = socket(AF_INET, SOCK_STREAM, 0);
    sockets.push_back(one);
    ASSERT_EQ(connect(one, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
    if (i % 4 != 0) {
      ASSERT_EQ(send(one, greeting.data(), greeting.size(), MSG_NOSIGNAL), 4);
      continue;
    }
    shaken.push_back(SSL_new(context));
    SSL_set_fd(shaken.back(), one);
    ASSERT_EQ(SSL_connect(shaken.back()), 1);
    ASSERT_EQ(SSL_write(shaken.back(), "POST /e", 7), 7);
  }
  httplib::SSLClient client("127.0.0.1", (*server)->port());
  client.set_ca_cert_path(Files("good/controller").authority.c_str());
  client.set_read_timeout(60, 0);  // threads held ten seconds each, four at a time, would take several minutes
  const std::string large(1 << 20, 'x');  // many records
  for (int i = 0; i < 5; ++i) {
    auto answer = client.Post("/echo", large, "text/plain");
    ASSERT_TRUE(answer) << to_string(answer.error());
    EXPECT_EQ(answer->body, large);
  }
  for (SSL* one : shaken) SSL_free(one);
  for (int one : sockets) close(one);
  SSL_CTX_free(context);
}

// Certificates are renewed while calls run, on old connections and on new ones: none fails. Then the old
// authority is dropped, and who has only it is out.
TEST_F(SecurityTest, CertificatesAreRenewedUnderLoad) {
  auto server = Serve(rpc::ClientCertificates::kRequired);
  const char* path = "/rein.v1.ControllerService/Register";
  std::atomic<bool> stop = false;
  std::atomic<int> calls = 0, failures = 0;
  std::thread load([&] {
    grpc::GenericStub kept(rpc::Connect(server->address(), Client("good/trainer")));
    while (!stop) {
      grpc::GenericStub fresh(rpc::Connect(server->address(), Client("good/trainer")));
      for (grpc::GenericStub* stub : {&kept, &fresh}) {
        ++calls;
        if (Call(*stub, path).error_code() != kEntered) ++failures;
      }
    }
  });
  for (int i = 0; i < 3; ++i) {
    Make("good", "controller", access::ServiceUri("controller"), kDay, absl::Now());
    Make("good", "trainer", access::ServiceUri("trainer"), kDay, absl::Now());
    absl::SleepFor(absl::Milliseconds(1200));
  }
  stop = true;
  load.join();
  EXPECT_EQ(failures, 0) << "of " << calls;
  EXPECT_GT(calls, 20);
  // The server now trusts the other authority alone.
  fs::copy_file(Path("other/ca.crt"), Path("good/controller/ca.crt"), fs::copy_options::overwrite_existing);
  grpc::StatusCode code = kEntered;
  for (int i = 0; i < 50 && code == kEntered; ++i) {
    absl::SleepFor(absl::Milliseconds(100));
    grpc::GenericStub stub(rpc::Connect(server->address(), Client("good/trainer")));
    code = Call(stub, path).error_code();
  }
  EXPECT_EQ(code, grpc::StatusCode::UNAVAILABLE);
}

TEST_F(SecurityTest, TheFolderIsCheckedBeforeAnythingListens) {
  EXPECT_TRUE(tls::OpenTlsFolder(Path("good/trainer")).ok());
  EXPECT_TRUE(absl::IsNotFound(tls::OpenTlsFolder(Path("nowhere")).status()));
  EXPECT_THAT(std::string(tls::OpenTlsFolder(Path("good/expired")).status().message()),
              HasSubstr("certificate has expired"));
  fs::copy(Path("good/trainer"), Path("mixed"));
  fs::copy_file(Path("good/reward/tls.key"), Path("mixed/tls.key"), fs::copy_options::overwrite_existing);
  EXPECT_THAT(std::string(tls::OpenTlsFolder(Path("mixed")).status().message()), HasSubstr("no PEM key of"));
  fs::copy_file(Path("good/trainer/tls.key"), Path("mixed/tls.key"), fs::copy_options::overwrite_existing);
  fs::copy_file(Path("other/ca.crt"), Path("mixed/ca.crt"), fs::copy_options::overwrite_existing);
  EXPECT_THAT(std::string(tls::OpenTlsFolder(Path("mixed")).status().message()), HasSubstr("is not valid under"));
  std::ofstream(Path("mixed/tls.crt")) << "nothing";
  EXPECT_THAT(std::string(tls::OpenTlsFolder(Path("mixed")).status().message()), HasSubstr("holds no PEM certificate"));
}

}  // namespace
}  // namespace rein

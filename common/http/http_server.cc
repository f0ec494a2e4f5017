#include "common/http/http_server.h"

#include <chrono>
#include <cstdio>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include <httplib.h>
#include <nlohmann/json.hpp>
#include <openssl/x509v3.h>

#include "common/access/method_access.h"
#include "common/http/intake.h"
#include "common/status/status_macros.h"

namespace rein::http {
namespace {

constexpr char kCookie[] = "rein_token=";

// Calls at once: what httplib does with an accepted connection is to give it to the intake, which waits for nothing.
class AtOnce final : public httplib::TaskQueue {
 public:
  void enqueue(std::function<void()> call) override { call(); }
  void shutdown() override {}
};

// Server or SSLServer, whose threads are given whole requests only.
template <typename Base>
class BoundedServer final : public Base {
 public:
  template <typename... Arguments>
  BoundedServer(const RequestBounds& bounds, int threads, Arguments&&... arguments)
      : Base(std::forward<Arguments>(arguments)...),
        pool_(static_cast<size_t>(threads)),
        intake_(bounds, Context(), [this](BoundedConnection& connection) { pool_.enqueue([this, &connection] { Serve(connection); }); }) {
    this->new_task_queue = [] { return new AtOnce; };
  }
  ~BoundedServer() override { pool_.shutdown(); }

 private:
  SSL_CTX* Context() const {
    if constexpr (std::is_base_of_v<httplib::SSLServer, Base>) return this->ssl_context();
    return nullptr;
  }

  bool process_and_close_socket(int socket) override {
    intake_.Add(socket);
    return true;
  }

  void Serve(BoundedConnection& connection) {
    bool closed = false;
    const bool last = connection.CountRequest() >= this->keep_alive_max_count_;
    const bool good = this->process_request(connection, /*close_connection=*/last, closed,
                                            [&connection](httplib::Request& request) { request.ssl = connection.ssl(); });
    intake_.Return(connection, last || closed || !good);
  }

  httplib::ThreadPool pool_;
  Intake intake_;
};

int StatusOf(absl::StatusCode code) {
  switch (code) {
    case absl::StatusCode::kOk:
      return 200;
    case absl::StatusCode::kInvalidArgument:
      return 400;
    case absl::StatusCode::kUnauthenticated:
      return 401;
    case absl::StatusCode::kPermissionDenied:
      return 403;
    case absl::StatusCode::kNotFound:
      return 404;
    case absl::StatusCode::kAlreadyExists:
    case absl::StatusCode::kFailedPrecondition:
      return 409;
    case absl::StatusCode::kResourceExhausted:
      return 429;
    case absl::StatusCode::kUnavailable:
      return 503;
    default:
      return 500;
  }
}

// Reads the three files for one connection. The context's argument is the options' TlsFolder.
int UseCertificates(SSL* ssl, void* argument) {
  const auto* tls = static_cast<const tls::TlsFolder*>(argument);
  X509_STORE* authorities = X509_STORE_new();
  bool good = authorities != nullptr && X509_STORE_load_file(authorities, tls->authority.c_str()) == 1 &&
              SSL_use_certificate_chain_file(ssl, tls->certificate.c_str()) == 1 &&
              SSL_use_PrivateKey_file(ssl, tls->key.c_str(), SSL_FILETYPE_PEM) == 1 &&
              SSL_set1_verify_cert_store(ssl, authorities) == 1;
  X509_STORE_free(authorities);
  return good ? 1 : 0;
}

std::vector<std::string> UrisOf(const SSL* ssl) {
  std::vector<std::string> uris;
  X509* certificate = SSL_get_peer_certificate(ssl);
  if (certificate == nullptr) return uris;
  auto* names = static_cast<GENERAL_NAMES*>(
      X509_get_ext_d2i(certificate, NID_subject_alt_name, nullptr, nullptr));
  for (int i = 0; names != nullptr && i < sk_GENERAL_NAME_num(names); ++i) {
    const GENERAL_NAME* name = sk_GENERAL_NAME_value(names, i);
    if (name->type != GEN_URI) continue;
    const ASN1_IA5STRING* uri = name->d.uniformResourceIdentifier;
    uris.emplace_back(reinterpret_cast<const char*>(ASN1_STRING_get0_data(uri)),
                      static_cast<size_t>(ASN1_STRING_length(uri)));
  }
  GENERAL_NAMES_free(names);
  X509_free(certificate);
  return uris;
}

// Of "Authorization: Bearer ..." or the cookie; "" without either.
std::string TokenOf(const httplib::Request& request) {
  const std::string bearer = request.get_header_value("Authorization");
  if (absl::StartsWith(bearer, "Bearer ")) return bearer.substr(sizeof("Bearer ") - 1);
  for (absl::string_view part : absl::StrSplit(request.get_header_value("Cookie"), "; ")) {
    if (absl::StartsWith(part, kCookie)) return std::string(part.substr(sizeof(kCookie) - 1));
  }
  return "";
}

// Whether a page of another origin made a browser send this. Safe methods may be sent by any page, which cannot read the
// answer; programs that are no browser send neither header.
absl::Status CheckOrigin(const httplib::Request& request) {
  if (request.method == "GET" || request.method == "HEAD") return absl::OkStatus();
  const std::string origin = request.get_header_value("Origin"), site = request.get_header_value("Sec-Fetch-Site");
  if (site == "same-origin" || site == "none") return absl::OkStatus();
  const size_t scheme = origin.find("://");
  const bool same = scheme != std::string::npos && origin.substr(scheme + 3) == request.get_header_value("Host");
  if (site.empty() && (origin.empty() || same)) return absl::OkStatus();
  return absl::PermissionDeniedError(absl::StrCat("a page of ", origin.empty() ? "another site" : origin, " may not ask for this"));
}

void Fill(const Response& from, httplib::Response& to) {
  to.status = from.status;
  to.set_header("X-Content-Type-Options", "nosniff");
  to.set_header("Cache-Control", "no-store");
  to.set_header("Referrer-Policy", "no-referrer");
  to.set_header("Content-Security-Policy",
                "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; "
                "form-action 'self'");
  for (const auto& [name, value] : from.headers) to.set_header(name, value);
  if (!from.stream) {
    to.set_content(from.body, from.type);
    return;
  }
  to.set_chunked_content_provider(
      from.type, [stream = from.stream](size_t, httplib::DataSink& sink) {
        stream([&sink](const std::string& piece) {
          return sink.is_writable() && sink.write(piece.data(), piece.size());
        });
        sink.done();
        return true;
      });
}

}  // namespace

std::string Request::Query(const std::string& name) const {
  auto found = query.find(name);
  return found == query.end() ? "" : found->second;
}

void Response::SetError(const absl::Status& error) {
  status = StatusOf(error.code());
  type = kJson;
  body = nlohmann::json{{"error", std::string(error.message())}}.dump(
      -1, ' ', false, nlohmann::json::error_handler_t::replace);
}

absl::StatusOr<std::unique_ptr<HttpServer>> HttpServer::Create(HttpOptions options) {
  const std::string address = options.address;
  const size_t colon = address.rfind(':');
  int port = 0;
  if (colon == std::string::npos || !absl::SimpleAtoi(address.substr(colon + 1), &port)) {
    return absl::InvalidArgumentError(absl::StrCat("want host:port, got '", address, "'"));
  }
  REIN_RETURN_IF_ERROR(tls::CheckReach("HTTP on", address, options.tls.has_value()));
  auto http = std::unique_ptr<HttpServer>(new HttpServer(std::move(options)));
  httplib::Server& server = *http->server_;
  const std::string host = address.substr(0, colon);
  int bound = -1;
  // No SO_REUSEPORT: a port that another listens on is an error. Connections of a process before this one, which the
  // kernel remembers for a minute, are none.
  server.set_socket_options([&bound](socket_t socket) {
    const int yes = 1;
    setsockopt(socket, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
    bound = socket;
  });
  if (port == 0) {
    http->port_ = server.bind_to_any_port(host);
  } else {
    http->port_ = server.bind_to_port(host, port) ? port : -1;
  }
  if (http->port_ < 0) {
    return absl::UnavailableError(absl::StrCat("cannot serve HTTP on ", address,
                                               ": the port is taken, or the host is not this one"));
  }
  // The library lets five connections wait for accept(); the kernel drops what comes beyond it.
  listen(bound, SOMAXCONN);
  server.set_socket_options([](socket_t) {});
  http->address_ = absl::StrCat(host, ":", http->port_);
  http->thread_ = std::thread([&server] { server.listen_after_bind(); });
  while (!server.is_running()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  return http;
}

HttpServer::HttpServer(HttpOptions options) : options_(std::move(options)) {
  const RequestBounds bounds{.body_bytes = options_.max_body_bytes};
  if (options_.tls.has_value()) {
    server_ = std::make_unique<BoundedServer<httplib::SSLServer>>(bounds, options_.threads, [this](SSL_CTX& context) {
      SSL_CTX_set_min_proto_version(&context, TLS1_2_VERSION);
      SSL_CTX_set_verify(&context, SSL_VERIFY_PEER, nullptr);  // a certificate may be absent, not wrong
      SSL_CTX_set_cert_cb(&context, &UseCertificates, const_cast<tls::TlsFolder*>(&*options_.tls));
      return true;
    });
  } else {
    server_ = std::make_unique<BoundedServer<httplib::Server>>(bounds, options_.threads);
  }
  server_->set_tcp_nodelay(true);  // head and body are written apart: the second must not wait 40 ms for an answer to the first
  server_->set_payload_max_length(options_.max_body_bytes);
  for (const Route& route : options_.routes) {
    auto answer = [this, &route](const httplib::Request& request, httplib::Response& response) {
      Answer(route, request, response);
    };
    if (route.method == "POST") {
      server_->Post(route.pattern, answer);
    } else {
      server_->Get(route.pattern, answer);
    }
  }
}

HttpServer::~HttpServer() {
  server_->stop();
  if (thread_.joinable()) thread_.join();
}

absl::StatusOr<access::Caller> HttpServer::CallerOf(const httplib::Request& request) const {
  access::Caller caller;
  if (!options_.tls.has_value()) {
    const std::string host = request.get_header_value("Host");
    if (!host.empty() && !tls::IsLoopback(absl::StrContains(host, ':') ? host : host + ":80")) {
      return absl::PermissionDeniedError(
          absl::StrCat("this port is for this machine alone, and knows no host ", host));
    }
    caller.local = true;
    return caller;
  }
  if (const std::string token = TokenOf(request); !token.empty()) {
    if (options_.tokens == nullptr) return absl::UnauthenticatedError("no token is known here");
    return options_.tokens->Find(token);
  }
  if (request.ssl != nullptr && SSL_get_verify_result(request.ssl) == X509_V_OK) {
    caller = access::CallerOfCertificate(UrisOf(request.ssl));
  }
  return caller;
}

void HttpServer::Answer(const Route& route, const httplib::Request& from, httplib::Response& to) {
  Response response;
  if (from.body.size() > options_.max_body_bytes) {  // in chunks, which the library does not bound
    response.SetError(absl::InvalidArgumentError(absl::StrCat("a body has at most ", options_.max_body_bytes, " bytes here")));
    response.status = 413;
    Fill(response, to);
    return;
  }
  absl::StatusOr<access::Caller> caller = CallerOf(from);
  absl::Status allowed = CheckOrigin(from);
  if (!allowed.ok()) {
    // said below
  } else if (route.least != access::UserRole::kNone) {
    allowed = caller.ok() ? access::CheckUser(route.least, *caller) : caller.status();
  } else if (absl::IsPermissionDenied(caller.status())) {
    allowed = caller.status();
  }
  if (allowed.ok() && caller.ok() && options_.limit != nullptr) allowed = options_.limit->Take(*caller);
  if (!allowed.ok()) {
    response.SetError(allowed);
    Fill(response, to);
    return;
  }
  Request request{.path = from.path,
                  .query = {from.params.begin(), from.params.end()},
                  .body = from.body,
                  .caller = caller.ok() ? *caller : access::Caller()};
  for (size_t i = 1; i < from.matches.size(); ++i) request.captures.push_back(from.matches[i].str());
  route.handle(request, response);
  Fill(response, to);
}

}  // namespace rein::http

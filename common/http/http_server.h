// HttpServer serves a table of routes over HTTP, or HTTPS with the certificates of a folder. It serves
// from Create() until it is destroyed.
//
//   std::vector<Route> routes = AdminRoutes(metrics, ready);
//   routes.push_back({"GET", "/api/jobs", access::UserRole::kViewer, [](const Request&, Response& r) {
//     r.type = kJson;
//     r.body = "[]";
//   }});
//   REIN_ASSIGN_OR_RETURN(auto server, HttpServer::Create({.address = "127.0.0.1:7080",
//                                                          .routes = std::move(routes)}));
//
// Without TLS only this machine may reach the port, and every caller is local; a request that names
// another host (a web site that had its name point here) is refused, and everywhere a request that changes something
// and that a page of another origin made a browser send. With TLS a caller is known by its
// certificate, by "Authorization: Bearer TOKEN", or by the cookie rein_token. Certificates are read anew
// for each connection. A request has ten seconds to come, 64 KiB of head (431 beyond it) and max_body_bytes of body, in chunks or
// not (413). Handlers run on the server's threads, which are given whole requests: slow senders and readers hold none, and
// where there are too many connections, those whose time ends first are closed. Only a stream holds its thread. Thread-safe.

#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"

#include "common/access/call_limit.h"
#include "common/access/caller.h"
#include "common/access/user_tokens.h"
#include "common/tls/tls_folder.h"

namespace httplib {
class Server;
struct Request;
struct Response;
}  // namespace httplib

namespace rein::http {

inline constexpr char kHtml[] = "text/html; charset=utf-8";
inline constexpr char kJson[] = "application/json";
inline constexpr char kText[] = "text/plain; charset=utf-8";
inline constexpr char kEvents[] = "text/event-stream";

struct Request {
  std::string path;
  std::map<std::string, std::string> query;
  std::vector<std::string> captures;  // groups of the route's pattern
  std::string body;
  access::Caller caller;

  // The parameter, or "".
  std::string Query(const std::string& name) const;
};

struct Response {
  // Sends a piece; false once the client is gone or the server stops.
  using Send = std::function<bool(const std::string& piece)>;

  int status = 200;
  std::string type = kHtml;
  std::string body;
  std::vector<std::pair<std::string, std::string>> headers;
  // Set: called in place of sending `body`, returns at the end of the stream.
  std::function<void(const Send& send)> stream;

  // {"error": message} with the HTTP status that fits.
  void SetError(const absl::Status& status);
};

struct Route {
  std::string method;   // GET or POST
  std::string pattern;  // regular expression over the whole path
  access::UserRole least = access::UserRole::kViewer;  // kNone: open to all
  std::function<void(const Request&, Response&)> handle;
};

struct HttpOptions {
  std::string address;  // host:port, port 0 for any
  std::optional<tls::TlsFolder> tls;
  access::UserTokens* tokens = nullptr;  // must outlive the server
  access::CallLimit* limit = nullptr;    // of users; must outlive the server
  int threads = 4;                       // as many requests and streams at once
  size_t max_body_bytes = 1 << 20;
  std::vector<Route> routes;
};

class HttpServer {
 public:
  // INVALID_ARGUMENT for an address that is none, or open to other machines without TLS; UNAVAILABLE
  // when it cannot be bound.
  static absl::StatusOr<std::unique_ptr<HttpServer>> Create(HttpOptions options);
  ~HttpServer();

  int port() const { return port_; }
  // host:port with the port that was chosen.
  const std::string& address() const { return address_; }

 private:
  explicit HttpServer(HttpOptions options);
  absl::Status Secure();
  absl::StatusOr<access::Caller> CallerOf(const httplib::Request& request) const;
  void Answer(const Route& route, const httplib::Request& request, httplib::Response& response);

  const HttpOptions options_;
  std::unique_ptr<httplib::Server> server_;
  std::thread thread_;
  std::string address_;
  int port_ = 0;
};

}  // namespace rein::http
